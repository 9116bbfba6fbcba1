// What happens when a browser or a focus ends without a word.
import { settle } from '../../interop/lib/wait.mjs';
import { membersAre } from '../lib/members.mjs';

// No ghost stays longer.
const GHOST_MS = 30000;
const PAIR = [{ name: 'Alice', home: 'a' }, { name: 'Bob', home: 'b', own: true }];

export default [
  ...['compatibility', 'matrix_2_0'].map((mode) => ({
    name: `${mode}: a browser is killed, and its person is gone within 30 s`,
    async run({ world, note }) {
      const { room, users, people: [alice, bob] } = await world.call(mode, PAIR);
      await Promise.all([alice.seesAndHears(), bob.seesAndHears()]);
      const killed = Date.now();
      bob.kill();
      await membersAre(users[0], room, [users[0]], GHOST_MS);
      note(`gone after ${((Date.now() - killed) / 1000).toFixed(1)} s`);
      await alice.seesNobody();
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
