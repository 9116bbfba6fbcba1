// Whoever is no longer in a Matrix room is out of its call, and stays out until it is back in the room.
import { expect, inTime, settle } from '../../interop/lib/wait.mjs';
import { ask, removedAt, token, verdict, withCall } from '../lib/tokens.mjs';

// From the homeserver's event to the end of media.
const OUT_MS = 1000;
// DisconnectReason of the protocol: PARTICIPANT_REMOVED.
const REMOVED = 4;

export default [
  ...[
    ['are kicked from', (alice, bob, room) => alice.kick(room, bob)],
    ['are banned from', (alice, bob, room) => alice.ban(room, bob)],
    ['leave', (alice, bob, room) => bob.leave(room)],
  ].map(([how, remove]) => ({
    name: `people who ${how} the room are out of the call within a second, and the others go on`,
    async run({ world, note }) {
      await withCall(world, async ({ alice, bob, room, join }) => {
        const first = await join(alice);
        const second = await join(bob);
        await Promise.all([first.plays(second.identity, 'audio'), second.plays(first.identity, 'audio')]);
        await remove(alice, bob, room);
        const told = await second.event('disconnected');
        const seen = await first.event('participantDisconnected', ({ from }) => from === second.identity);
        const since = await removedAt(alice, room, bob);
        note(`told ${told.at - since} ms after the event, seen by the other after ${seen.at - since} ms`);
        expect(told.reason === REMOVED, `the reason is ${told.reason}`);
        inTime('out', Math.max(told.at, seen.at) - since, OUT_MS);
        expect(await verdict(second.given) === 401, 'the old token is refused');
        expect((await ask(world, bob, room)).status === 403, 'there is no new one');
        expect((await first.do('state')).state === 'connected', 'the other goes on');
      });
    },
  })),
  {
    name: 'a token from before is refused after restarts and after coming back to the room, and a new one is good',
    async run({ world }) {
      await withCall(world, async ({ alice, bob, room, join }) => {
        const { given } = await join(bob);
        await alice.kick(room, bob);
        for (const signal of ['SIGTERM', 'SIGKILL']) {
          await settle('the token is refused', async () => await verdict(given) === 401);
          await world.foci.a.stop(signal);
          await world.foci.a.start();
          expect(await verdict(given) === 401, `the token is refused after ${signal}`);
        }
        await alice.invite(room, bob);
        await bob.join(room, alice.homeserver);
        const again = await join(bob, await settle('there is a new token', async () => {
          const answer = await ask(world, bob, room);
          return answer.jwt && answer;
        }));
        expect(await verdict(given) === 401, 'the old token is still refused');
        const first = await join(alice);
        await first.plays(again.identity, 'audio');
      });
    },
  },
  {
    name: 'people who are kicked while the focus is away are refused when it is back',
    async run({ world }) {
      await withCall(world, async ({ alice, bob, room }) => {
        const given = await token(world, bob, room);
        expect(await verdict(given) === 200, 'the token is good');
        await world.foci.a.stop('SIGKILL');
        await alice.kick(room, bob);
        await world.foci.a.start();
        expect(await verdict(given) === 401, 'the token is refused at once');
      });
    },
  },
  {
    name: 'strangers to a room get no token, wherever they are from, and members do',
    async run({ world }) {
      const alice = await world.user('Alice');
      const far = await world.user('Far', 'b');
      const room = await world.room([alice, far]);
      for (const home of ['a', 'b']) {
        const stranger = await world.user('Eve', home);
        const answer = await ask(world, stranger, room);
        expect(answer.status === 403 && answer.errcode === 'M_FORBIDDEN', `a stranger gets ${JSON.stringify(answer)}`);
      }
      for (const member of [alice, far]) await token(world, member, room);
    },
  },
  {
    name: 'where members are required, nobody comes into a room that the last user of the homeserver has left',
    async run({ world }) {
      const focus = world.foci.a;
      const restart = async (settings) => {
        await focus.stop();
        focus.configure(settings);
        await focus.start();
      };
      const alice = await world.user('Alice');
      const far = await world.user('Far', 'b');
      const room = await world.room([alice, far]);
      await restart({ membership: 'require' });
      try {
        await token(world, alice, room);
        const given = await token(world, far, room);
        expect(await verdict(given) === 200, 'the token is good');
        await alice.leave(room);
        await settle('the token is refused', async () => await verdict(given) === 401);
        const answer = await ask(world, far, room);
        expect(answer.status === 403 && answer.errcode === 'M_FORBIDDEN', `there is no new one: ${JSON.stringify(answer)}`);
      } finally {
        await restart();
      }
    },
  },
  ...['compatibility', 'matrix_2_0'].map((mode) => ({
    name: `${mode}: Element Call is out when its user is kicked, and the other goes on`,
    async run({ world }) {
      const pair = [{ name: 'Alice', home: 'a' }, { name: 'Bob', home: 'a' }];
      const { room, users, people: [alice, bob] } = await world.call(mode, pair);
      await Promise.all([alice.seesAndHears(), bob.seesAndHears()]);
      await users[0].kick(room, users[1]);
      await alice.seesNobody();
      await settle('the focus has one participant', async () => (await world.foci.a.metric('weir_participants')) === 1);
    },
  })),
];
