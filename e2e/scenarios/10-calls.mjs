// Two people see and hear each other, share a screen, and hang up: in both modes, at one focus and at two.
import { membersAre } from '../lib/members.mjs';

const MODES = ['compatibility', 'matrix_2_0'];
const PLACES = [['one focus', 'a', 'a'], ['two federated foci', 'a', 'b']];

const pairs = MODES.flatMap((mode) => PLACES.map(([place, first, second]) => ({
  name: `${mode}, ${place}: both see and hear each other, a shared screen too, until they hang up`,
  async run({ world, note }) {
    const started = Date.now();
    const { room, users, people: [alice, bob] } = await world.call(mode, [{ name: 'Alice', home: first }, { name: 'Bob', home: second }]);
    await Promise.all([alice.seesAndHears(), bob.seesAndHears()]);
    note(`seen and heard after ${((Date.now() - started) / 1000).toFixed(1)} s`);
    await membersAre(users[0], room, users);

    await bob.shareScreen();
    await alice.seesAndHears(2);

    await bob.hangUp();
    await alice.seesNobody();
    await membersAre(users[0], room, [users[0]]);
    await alice.hangUp();
    await membersAre(users[1], room, []);
  },
})));

export default [
  ...pairs,
  {
    name: 'somebody whose browser is slow to list its devices is seen and heard all the same',
    async run({ world }) {
      const { people: [alice, bob] } = await world.call('compatibility', [{ name: 'Alice', home: 'a', slowDevices: true }, { name: 'Bob', home: 'a' }]);
      await Promise.all([alice.seesAndHears(), bob.seesAndHears()]);
    },
  },
  {
    name: 'Chromium and Firefox see and hear each other',
    async run({ world }) {
      const people = [{ name: 'Alice', home: 'a' }, { name: 'Bob', home: 'b', browser: 'firefox' }];
      const { people: [alice, bob] } = await world.call('compatibility', people);
      await Promise.all([alice.seesAndHears(), bob.seesAndHears()]);
      await bob.hangUp();
      await alice.seesNobody();
    },
  },
];
