// A focus that is no application service, but a user whom people invite to their rooms.
import { expect, inTime, settle } from '../../interop/lib/wait.mjs';
import { ask, removedAt, token, verdict, withCall } from '../lib/tokens.mjs';

// From the homeserver's event to the end of media.
const OUT_MS = 1000;

// The focus at home as that user until `run` ends, and only members of rooms that it is in get tokens.
async function withUser(world, run) {
  const focus = world.foci.a;
  const restart = async (settings) => {
    await focus.stop();
    focus.configure(settings);
    await focus.start();
  };
  const weir = await world.user('Weir');
  await restart({ user: weir, membership: 'require' });
  try {
    // It enters a room by itself when it is invited.
    const invite = async (by, room) => {
      await by.invite(room, weir);
      await settle('the focus is in the room', async () => (await by.memberEvent(room, weir)).content.membership === 'join');
    };
    await run({ focus, weir, invite });
  } finally {
    await restart();
  }
}

// Since the homeserver had it that somebody is out, when the focus had so many participants at last.
async function until(focus, participants, by, room, user) {
  await settle(`the focus has ${participants}`, async () => (await focus.metric('weir_participants')) === participants);
  const seen = Date.now();
  return seen - await removedAt(by, room, user);
}

export default [
  {
    name: 'a focus that is a user: strangers and rooms that it is not in get no token, and who is kicked is out within a second',
    async run({ world, note }) {
      await withUser(world, async ({ focus, invite, weir }) => {
        await withCall(world, async ({ alice, bob, room, join }) => {
          const eve = await world.user('Eve');
          expect((await ask(world, alice, room)).status === 403, 'nobody gets a token before it is invited');
          const stranger = await world.user('Far', 'b');
          await stranger.invite(await stranger.createRoom('Elsewhere', []), weir);
          await invite(alice, room);
          for (const user of [eve, stranger]) expect((await ask(world, user, room)).status === 403, `${user.name} is a stranger`);
          const first = await join(alice, await settle('Alice has a token', () => token(world, alice, room)));
          const second = await join(bob);
          await Promise.all([first.plays(second.identity, 'audio'), second.plays(first.identity, 'audio')]);
          await alice.kick(room, bob);
          const told = await second.event('disconnected');
          const seen = await first.event('participantDisconnected', ({ from }) => from === second.identity);
          const since = await removedAt(alice, room, bob);
          note(`told ${told.at - since} ms after the event, seen by the other after ${seen.at - since} ms`);
          inTime('out', Math.max(told.at, seen.at) - since, OUT_MS);
          expect(await verdict(second.given) === 401, 'the old token is refused');
          expect((await ask(world, bob, room)).status === 403, 'there is no new one');
          expect((await first.do('state')).state === 'connected', 'the other goes on');
          expect((await focus.metric('weir_matrix_user_rooms')) === 1, 'it declines the invitation from elsewhere');
          // It is no longer told who leaves, so nobody stays.
          await alice.kick(room, weir);
          const out = await first.event('disconnected');
          note(`out ${out.at - await removedAt(alice, room, weir)} ms after the focus itself was removed`);
          expect(await verdict(first.given) === 401, 'nor does anybody come back');
        });
      });
    },
  },
  {
    name: 'a focus that is a user: who is kicked while it is away is refused, and its device is the same after restarts',
    async run({ world }) {
      await withUser(world, async ({ focus, invite, weir }) => {
        await withCall(world, async ({ alice, bob, room }) => {
          await invite(alice, room);
          const given = await settle('Bob has a token', () => token(world, bob, room));
          expect(await verdict(given) === 200, 'the token is good');
          await focus.stop('SIGKILL');
          await alice.kick(room, bob);
          await focus.start();
          expect(await verdict(given) === 401, 'the token is refused at once');
          const { devices } = await weir.call('GET', '/_matrix/client/v3/devices');
          const own = devices.filter(({ display_name: name }) => name === 'Weir');
          expect(own.length === 1, `it has ${own.length} devices`);
        });
      });
    },
  },
  ...['compatibility', 'matrix_2_0'].map((mode) => ({
    name: `a focus that is a user: ${mode}: after its restart, Element Call is out when its user is kicked`,
    async run({ world, note }) {
      await withUser(world, async ({ focus, invite }) => {
        const users = [await world.user('Alice'), await world.user('Bob')];
        const room = await world.room(users);
        await invite(users[0], room);
        await focus.stop('SIGKILL');
        await focus.start();
        const [alice, bob] = [await world.person(users[0], room, { mode }), await world.person(users[1], room, { mode })];
        await alice.join();
        await bob.join();
        await Promise.all([alice.seesAndHears(), bob.seesAndHears()]);
        const given = await token(world, users[1], room);
        await users[0].kick(room, users[1]);
        const took = await until(focus, 1, users[0], room, users[1]);
        note(`out ${took} ms after the event`);
        inTime('out', took, OUT_MS);
        expect(await verdict(given) === 401, 'the old token is refused');
        await alice.seesNobody();
      });
    },
  })),
];
