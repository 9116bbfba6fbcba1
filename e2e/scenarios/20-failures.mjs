// What happens when a browser or a focus ends without a word.
import { expect, settle } from '../../interop/lib/wait.mjs';
import { leaves, membersAre } from '../lib/members.mjs';

// No ghost stays longer.
const GHOST_MS = 30000;
const PAIR = [{ name: 'Alice', home: 'a' }, { name: 'Bob', home: 'b', own: true }];

// Of its leave by a client that keeps it alive itself: every four seconds one of 18, so that it would have left by then.
const RESTARTS = 5;
const MODES = ['compatibility', 'matrix_2_0'];

async function withoutDelegation(world, run) {
  const restart = async (settings) => {
    for (const focus of Object.values(world.foci)) {
      await focus.stop();
      focus.configure(settings);
      await focus.start();
    }
  };
  await restart({ delegation: false });
  try {
    await run();
  } finally {
    await restart();
  }
}

// Kills Bob's browser, and sees him go.
async function dies({ world, note }, { room, users, people: [alice, bob] }) {
  const killed = Date.now();
  bob.kill();
  await membersAre(users[0], room, [users[0]], GHOST_MS);
  note(`gone after ${((Date.now() - killed) / 1000).toFixed(1)} s`);
  await alice.seesNobody();
}

export default [
  ...MODES.map((mode) => ({
    name: `${mode}: a browser is killed, and its person is gone within 30 s`,
    idle: true,
    async run(context) {
      const call = await context.world.call(mode, PAIR);
      await Promise.all(call.people.map((person) => person.seesAndHears()));
      await settle('the focus has the leave in hand', async () => (await leaves(context.world.foci.b, 'held')) === 1);
      await dies(context, call);
    },
  })),
  ...MODES.map((mode) => ({
    name: `${mode}: a browser is killed whose client kept its leave alive itself, and its person is gone within 30 s`,
    idle: true,
    async run(context) {
      await withoutDelegation(context.world, async () => {
        const call = await context.world.call(mode, PAIR);
        await Promise.all(call.people.map((person) => person.seesAndHears()));
        await settle('the client restarts its leave', () => call.people[1].restarts >= RESTARTS);
        await membersAre(call.users[0], call.room, call.users);
        expect((await leaves(context.world.foci.b, 'held')) === 0, 'the focus has no leave in hand');
        await dies(context, call);
      });
    },
  })),
  {
    name: 'a focus is killed and started again, and everybody is back',
    async run({ world, note }) {
      const { people: [alice, bob] } = await world.call('compatibility', PAIR);
      await Promise.all([alice.seesAndHears(), bob.seesAndHears()]);
      const focus = world.foci.a;
      await focus.stop('SIGKILL');
      await focus.start();
      const started = Date.now();
      await settle('all have joined again', async () => (await focus.metric('weir_participants')) === 2, 90000);
      note(`all joined again ${((Date.now() - started) / 1000).toFixed(1)} s after the restart`);
      await Promise.all([alice.seesAndHears(), bob.seesAndHears()]);
    },
  },
];
