// Tokens that people get of their own homeserver, which passes the request on to the focus beside it (MSC4195).
import crypto from 'node:crypto';
import fs from 'node:fs';
import { MEMBER_STATE, User } from '../../deploy/stage/lib/matrix.mjs';
import { Clients } from '../../interop/lib/clients.mjs';
import { expect, settle } from '../../interop/lib/wait.mjs';
import { leaves, membersAre } from '../lib/members.mjs';

const BASE = '/_matrix/client/unstable/io.element.msc4195/rtc/livekit';
const SLOT = 'm.call#ROOM';
// No ghost stays longer.
const GHOST_MS = 30000;
// So long that within a scenario nobody but the focus can have had it sent.
const HOUR = 3600000;

// What the user's homeserver answers, or why it does not.
async function post(user, endpoint, body) {
  try {
    return { status: 200, ...await user.call('POST', `${BASE}/${endpoint}`, body) };
  } catch (error) {
    if (!error.status) throw error;
    return { status: error.status, errcode: error.errcode };
  }
}

const ask = (user, room, more) => post(user, 'get_token', { room_id: room, slot_id: SLOT, member_id: 'stay', ...more });

// A token for a focus, which is another homeserver's if one is named.
async function token(user, room, focus, homeserver) {
  const answer = await ask(user, room, { url: focus.sfu, ...(homeserver && { server_name: homeserver.serverName }) });
  expect(answer.jwt, `${user.name} gets a token: ${JSON.stringify(answer)}`);
  return answer;
}

function refused(answer, status, errcode, what) {
  expect(answer.status === status && answer.errcode === errcode, `${what}: ${JSON.stringify(answer)}`);
}

// As whom everybody expects them.
function identity(user) {
  return crypto.createHash('sha256').update(JSON.stringify([user.id, 'stay'])).digest('base64').replace(/=+$/, '');
}

const claims = ({ jwt }) => JSON.parse(Buffer.from(jwt.split('.')[1], 'base64url'));

// What the focus says of a token without letting anybody in.
async function verdict(focus, { jwt }) {
  return (await fetch(`${focus.sfu.replace('ws:', 'http:')}/rtc/validate?access_token=${jwt}`)).status;
}

// Clients that are ended however the scenario ends.
async function withClients(run) {
  const clients = new Clients(undefined, undefined, {});
  try {
    await run(async (focus, { jwt }) => {
      const client = await clients.create('node');
      await client.do('connect', { url: focus.sfu, token: jwt });
      return client;
    });
  } finally {
    await clients.closeAll();
  }
}

export default [
  {
    name: 'members get tokens of their homeserver and hear each other, nobody is looked up, and strangers get none',
    async run({ world }) {
      const stage = await world.withTokens();
      const { a: focus, b: other } = stage.foci;
      const [alice, bob, eve] = await Promise.all(['Alice', 'Bob', 'Eve'].map((name) => stage.user(name)));
      const room = await stage.room([alice, bob]);
      const lookups = await focus.metric('weir_openid_lookups_total');
      await withClients(async (connect) => {
        const clients = [];
        for (const user of [alice, bob]) {
          const given = await token(user, room, focus);
          expect(given.url === focus.sfu && claims(given).sub === identity(user), `a token for ${user.name}: ${JSON.stringify(claims(given))}`);
          const client = await connect(focus, given);
          await client.do('publish', { source: 'microphone' });
          clients.push(client);
        }
        await Promise.all([clients[0].plays(identity(bob), 'audio'), clients[1].plays(identity(alice), 'audio')]);
      });
      refused(await ask(eve, room, { url: focus.sfu }), 403, 'M_FORBIDDEN', 'a stranger to the room');
      refused(await ask(alice, room, { url: other.sfu }), 400, 'M_INVALID_PARAM', 'another focus');
      refused(await ask(alice, room, { member_id: '' }), 400, 'M_BAD_JSON', 'nobody in particular');
      refused(await ask(new User(alice.homeserver, { name: 'nobody' }), room), 401, 'M_MISSING_TOKEN', 'without an access token');
      for (const headers of [{}, { authorization: `Bearer ${alice.token}` }]) {
        const response = await fetch(`${focus.url}${BASE}/get_token`, {
          method: 'POST', headers: { ...headers, 'x-matrix-user-identifier': alice.id }, body: JSON.stringify({ room_id: room, slot_id: SLOT, member_id: 'stay' }),
        });
        expect(response.status === 401, `the focus serves nobody but the homeserver: ${response.status}`);
      }
      expect(await focus.metric('weir_openid_lookups_total') === lookups, 'somebody was looked up');
    },
  },
  {
    name: 'a member from another homeserver gets a token from homeserver to homeserver, hears the call, and is out when kicked',
    async run({ world }) {
      const stage = await world.withTokens();
      const { a: focus, b: other } = stage.foci;
      const { homeservers } = stage;
      const alice = await stage.user('Alice', 'a');
      const far = await stage.user('Far', 'b');
      const room = await stage.room([alice, far]);
      await withClients(async (connect) => {
        const first = await connect(focus, await token(alice, room, focus));
        await first.do('publish', { source: 'microphone' });
        const given = await token(far, room, focus, homeservers.a);
        const { sub, video } = claims(given);
        expect(sub === identity(far) && !video.canPublish && !video.roomCreate, `it may listen: ${JSON.stringify(video)}`);
        const second = await connect(focus, given);
        await second.plays(identity(alice), 'audio');
        await alice.kick(room, far);
        await second.event('disconnected');
        await settle('the token is refused', async () => await verdict(focus, given) === 401);
      });
      const abroad = { url: focus.sfu, server_name: homeservers.a.serverName };
      refused(await ask(far, room, abroad), 403, 'M_FORBIDDEN', 'who was kicked');
      // Of this room the stranger's own focus sees nothing, so the other one decides.
      const home = await stage.room([alice]);
      refused(await ask(await stage.user('Eve', 'b'), home, abroad), 403, 'M_FORBIDDEN', 'a stranger from abroad');
      refused(await ask(far, home, { ...abroad, url: other.sfu }), 400, 'M_INVALID_PARAM', 'a focus that is not there');
      refused(await ask(far, home, { ...abroad, server_name: '127.0.0.9:8448' }), 502, 'M_UNKNOWN', 'a homeserver that is not there');
    },
  },
  {
    name: 'a leave that is handed over through the homeserver is held in its user\'s name, and sent when the client is killed',
    async run({ world, note }) {
      const stage = await world.withTokens();
      const focus = stage.foci.a;
      const [dana, eve] = [await stage.user('Dana'), await stage.user('Eve')];
      const room = await stage.room([dana, eve]);
      const key = encodeURIComponent(`_${dana.id}_${dana.device}_m.call`);
      const path = `/_matrix/client/v3/rooms/${encodeURIComponent(room)}/state/${MEMBER_STATE}/${key}`;
      const { delay_id } = await dana.call('PUT', `${path}?org.matrix.msc4140.delay=${HOUR}`, {});
      await dana.call('PUT', path, {
        application: 'm.call', call_id: '', scope: 'm.room', device_id: dana.device, expires: 14400000,
        focus_active: { type: 'livekit', focus_selection: 'multi_sfu' },
        foci_preferred: [{ type: 'livekit', livekit_service_url: focus.service, livekit_alias: room }],
      });
      await membersAre(dana, room, [dana]);
      const delegate = (user, more) => post(user, 'delegate_delayed_leave', { room_id: room, slot_id: SLOT, member_id: 'stay', delay_id, ...more });
      refused(await delegate(eve), 400, 'M_INVALID_PARAM', 'another\'s leave');
      refused(await delegate(dana, { delay_id: 'syd_none' }), 400, 'M_INVALID_PARAM', 'no leave');
      refused(await delegate(dana, { room_id: await stage.room([dana]) }), 400, 'M_INVALID_PARAM', 'the leave of another room');
      await withClients(async (connect) => {
        const client = await connect(focus, await token(dana, room, focus));
        const answer = await delegate(dana);
        expect(answer.status === 200, `it is taken on: ${JSON.stringify(answer)}`);
        await settle('the leave is held', async () => (await leaves(focus, 'held')) === 1);
        client.process.child.kill('SIGKILL');
        const killed = Date.now();
        await membersAre(dana, room, [], GHOST_MS);
        note(`gone ${((Date.now() - killed) / 1000).toFixed(1)} s after SIGKILL`);
      });
      const managed = fs.readFileSync(stage.homeservers.a.log, 'utf8').split('\n')
        .filter((line) => line.includes(`POST /_matrix/client/unstable/org.matrix.msc4140/delayed_events/${delay_id}/`));
      expect(managed.length > 0 && managed.every((line) => line.includes('?user_id=')), `it was managed by: ${managed.join('\n')}`);
    },
  },
  {
    name: 'Element Call is in a call on homeservers that pass tokens on, and whose browser is killed is gone within 30 s',
    async run({ world, note }) {
      const stage = await world.withTokens();
      const pair = [{ name: 'Alice', home: 'a' }, { name: 'Bob', home: 'b', own: true }];
      const { room, users, people: [alice, bob] } = await stage.call('matrix_2_0', pair);
      await Promise.all([alice.seesAndHears(), bob.seesAndHears()]);
      await settle('the focus has the leave in hand', async () => (await leaves(stage.foci.b, 'held')) === 1);
      const killed = Date.now();
      bob.kill();
      await membersAre(users[0], room, [users[0]], GHOST_MS);
      note(`gone after ${((Date.now() - killed) / 1000).toFixed(1)} s`);
      await alice.seesNobody();
    },
  },
];
