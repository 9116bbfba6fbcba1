// How long people wait for a picture after their click on "Join", and how much of that is the focus's doing. Figures are told,
// and decide nothing: they are of a machine on which two browsers, homeservers and foci share few cores.
import { settle } from '../../interop/lib/wait.mjs';
import { membersAre } from '../lib/members.mjs';
import { mark, median, share } from '../lib/share.mjs';

const MODES = ['compatibility', 'matrix_2_0'];
const PLACES = [['one focus', 'a', 'a'], ['two federated foci', 'a', 'b']];
const JOINS = 3;
// Each join may take as long as on a machine that is busy with much else.
const DEADLINE = 400000;

// One join of Bob, who then hangs up again.
async function join({ world, alice, users: [other, user], room, mode }) {
  const bob = await (await world.person(user, room, { mode, lobby: true })).standsAtTheDoor();
  const marks = Object.values(world.foci).map((focus) => [focus, mark(focus)]);
  const picture = await bob.joinsUntilAPicture();
  const of = await settle('the focus has told of a first packet', () => share(marks));
  // Gone before the next comes with the same device: who is replaced in haste is not given keys anew.
  await alice.seesPictures(1);
  await bob.hangUp();
  await alice.seesNobody();
  await membersAre(other, room, [other]);
  await bob.close();
  return { picture, ...of };
}

export default MODES.flatMap((mode) => PLACES.map(([place, first, second]) => ({
  name: `${mode}, ${place}: from a click on "Join" to the first picture`,
  deadline: DEADLINE,
  async run({ world, note }) {
    const users = [await world.user('Alice', first), await world.user('Bob', second)];
    const room = await world.room(users);
    const alice = await (await world.person(users[0], room, { mode })).join();
    const joins = [];
    for (let at = 0; at < JOINS; at += 1) joins.push(await join({ world, alice, users, room, mode }));
    const of = (part) => joins.map((one) => one[part]);
    const middle = (part) => Math.round(median(of(part)));
    note(`a picture after ${middle('picture')} ms in the median of ${JOINS}, ${Math.round(Math.min(...of('picture')))} to ` +
      `${Math.round(Math.max(...of('picture')))} ms`);
    note(`of that the focus ${middle('all')} ms, at most ${Math.max(...of('all'))}: ${middle('token')} for tokens, ` +
      `${middle('join')} for joins, ${middle('firstPacket')} to the first packet; and ${middle('lookUp')} ms until homeservers ` +
      'had said whose the OpenID tokens are');
  },
})));
