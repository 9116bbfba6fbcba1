// Leaves that clients hand over to the focus (MSC4140): sent when they are gone, and not before.
import { setTimeout as sleep } from 'node:timers/promises';
import { MEMBER_STATE } from '../../deploy/stage/lib/matrix.mjs';
import { Clients } from '../../interop/lib/clients.mjs';
import { expect, settle } from '../../interop/lib/wait.mjs';
import { leaves, membersAre } from '../lib/members.mjs';

// No ghost stays longer.
const GHOST_MS = 30000;
// So long that within a scenario nobody but the focus can have had it sent.
const HOUR = 3600000;

// Somebody in a call by the word of their homeserver, who has handed over their leave.
class Member {
  constructor(world, user, room) {
    Object.assign(this, { user, room, focus: world.foci.a });
  }

  async announce(delay) {
    const key = encodeURIComponent(`_${this.user.id}_${this.user.device}_m.call`);
    const path = `/_matrix/client/v3/rooms/${encodeURIComponent(this.room)}/state/${MEMBER_STATE}/${key}`;
    this.delay = delay;
    const scheduled = await this.user.call('PUT', `${path}?org.matrix.msc4140.delay=${delay}`, {});
    this.delayId = scheduled.delay_id;
    await this.user.call('PUT', path, {
      application: 'm.call', call_id: '', scope: 'm.room', device_id: this.user.device, expires: 14400000,
      focus_active: { type: 'livekit', focus_selection: 'multi_sfu' },
      foci_preferred: [{ type: 'livekit', livekit_service_url: this.focus.service, livekit_alias: this.room }],
    });
  }

  async post(endpoint, body) {
    const openid_token = await this.user.openId();
    const leave = { delay_id: this.delayId, delay_timeout: this.delay, delay_cs_api_url: this.user.homeserver.url };
    const response = await fetch(this.focus.service + endpoint, {
      method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ openid_token, ...leave, ...body }),
    });
    return { status: response.status, ...await response.json() };
  }

  // As Element Call hands it over: with the request for a token.
  async token() {
    const answer = await this.post('/sfu/get', { room: this.room, device_id: this.user.device });
    expect(answer.jwt, `a token: ${JSON.stringify(answer)}`);
    return answer;
  }

  delegate(more = {}) {
    const member = { id: 'stay', claimed_user_id: this.user.id, claimed_device_id: this.user.device };
    return this.post('/delegate_delayed_leave', { room_id: this.room, slot_id: 'm.call#ROOM', member, ...more });
  }

  async connect({ url, jwt }) {
    this.client = await new Clients(undefined, undefined, {}).create('node');
    await this.client.do('connect', { url, token: jwt });
  }

  kill() {
    this.client.process.child.kill('SIGKILL');
    return Date.now();
  }
}

async function member(world, delay) {
  const user = await world.user('Dana');
  const dana = new Member(world, user, await world.room([user]));
  await dana.announce(delay);
  await membersAre(user, dana.room, [user]);
  return dana;
}

// Has the client killed however the scenario ends.
async function withMember(world, delay, run) {
  const dana = await member(world, delay);
  try {
    await run(dana);
  } finally {
    await dana.client?.close();
  }
}

const seconds = (since) => ((Date.now() - since) / 1000).toFixed(1);

export default [
  {
    name: 'a delegated leave is kept from firing while its client is connected, and sent when it is killed',
    idle: true,
    async run({ world, note }) {
      await withMember(world, 10000, async (dana) => {
        await dana.connect(await dana.token());
        await settle('the leave is held', async () => (await leaves(dana.focus, 'held')) === 1);
        await sleep(25000); // two and a half times its delay
        await membersAre(dana.user, dana.room, [dana.user], 1000);
        const killed = dana.kill();
        await membersAre(dana.user, dana.room, [], GHOST_MS);
        note(`gone ${seconds(killed)} s after SIGKILL`);
      });
    },
  },
  {
    name: 'a client that handed over a leave of an hour is gone within 30 s of its death, and at once when it says so',
    idle: true,
    async run({ world, note }) {
      await withMember(world, HOUR, async (dana) => {
        await dana.connect(await dana.token());
        const killed = dana.kill();
        await membersAre(dana.user, dana.room, [], GHOST_MS);
        note(`gone ${seconds(killed)} s after SIGKILL`);
      });
      await withMember(world, HOUR, async (dana) => {
        await dana.connect(await dana.token());
        const left = Date.now();
        await dana.client.do('disconnect');
        await membersAre(dana.user, dana.room, [], 2000);
        note(`gone ${seconds(left)} s after it left`);
      });
    },
  },
  {
    name: 'a leave that was handed over while connected is held as well, and one whose client never connects is sent',
    idle: true,
    async run({ world, note }) {
      await withMember(world, HOUR, async (dana) => {
        const { delay_id: _, ...token } = await dana.post('/sfu/get', {
          room: dana.room, device_id: dana.user.device, delay_id: undefined, delay_timeout: undefined,
        });
        await dana.connect(token);
        const answer = await dana.delegate();
        expect(answer.status === 200, `it is taken on: ${JSON.stringify(answer)}`);
        await settle('the leave is held', async () => (await leaves(dana.focus, 'held')) === 1);
        dana.kill();
        await membersAre(dana.user, dana.room, [], GHOST_MS);
      });
      await withMember(world, HOUR, async (dana) => {
        const answered = Date.now();
        await dana.token();
        await membersAre(dana.user, dana.room, [], GHOST_MS);
        note(`gone ${seconds(answered)} s after a token that nobody used`);
      });
    },
  },
  {
    name: 'a focus that is killed sends the leaves of those who do not come back, and holds those of the others',
    idle: true,
    async run({ world, note }) {
      await withMember(world, HOUR, (stays) => withMember(world, HOUR, async (goes) => {
        for (const dana of [stays, goes]) await dana.connect(await dana.token());
        await settle('both leaves are held', async () => (await leaves(stays.focus, 'held')) === 2);
        await stays.focus.stop('SIGKILL');
        goes.kill();
        await stays.focus.start();
        const started = Date.now();
        await membersAre(goes.user, goes.room, [], GHOST_MS);
        note(`gone ${seconds(started)} s after the focus was back`);
        await settle('the other is back', async () => (await leaves(stays.focus, 'held')) === 1);
        await sleep(10000);
        await membersAre(stays.user, stays.room, [stays.user], 1000);
      }));
    },
  },
  {
    name: 'whoever hands over a leave that does not exist, or that is another user\'s to say, is told so',
    idle: true,
    async run({ world }) {
      await withMember(world, HOUR, async (dana) => {
        const probe = await fetch(`${dana.focus.service}/delegate_delayed_leave`, { method: 'POST' });
        expect(probe.status === 400, `clients ask with nothing in hand whether this is there: ${probe.status}`);
        const cases = [
          [{ delay_id: 'syd_none' }, 400, 'M_INVALID_PARAM'],
          [{ delay_id: '..' }, 400, 'M_BAD_JSON'],
          [{ delay_timeout: 1 }, 400, 'M_BAD_JSON'],
          [{ member: { id: 'x', claimed_user_id: '@eve:127.0.0.1:8448', claimed_device_id: 'D' } }, 401, 'M_UNAUTHORIZED'],
        ];
        for (const [more, status, errcode] of cases) {
          const answer = await dana.delegate(more);
          expect(answer.status === status && answer.errcode === errcode, `${JSON.stringify(more)}: ${JSON.stringify(answer)}`);
        }
        await membersAre(dana.user, dana.room, [dana.user], 1000);
      });
    },
  },
];
