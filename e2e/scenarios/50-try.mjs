// `deploy/try`, as somebody meets it who opens both of its links in one browser.
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { User } from '../../deploy/stage/lib/matrix.mjs';
import { start, stop } from '../../deploy/stage/lib/program.mjs';
import { expect, settle } from '../../interop/lib/wait.mjs';
import { keepState } from '../lib/world.mjs';

const SCRIPT = fileURLToPath(new URL('../../deploy/stage/try.mjs', import.meta.url));
const SECOND_START_MS = 15000;
const PORT = 7800;

async function begin(world, folder) {
  const started = Date.now();
  const stage = start('deploy/try', process.execPath,
    [SCRIPT, '--weir', world.weir, '--synapse', world.synapse, '--folder', folder, '--port', `${PORT}`, '--log', 'debug'],
    { log: path.join(folder, 'said.log') });
  const links = await settle('two links', () => {
    expect(!stage.ended, `it ended: ${stage.tail.join('\n')}`);
    const found = stage.tail.map((line) => line.match(/^ +(\w+) +(http:\S+)$/)).filter(Boolean);
    return found.length === 2 && found.map(([, name, url]) => ({ name, url }));
  }, 60000);
  return { stage, links, took: Date.now() - started };
}

const says = (stage, text) => settle(`it says "${text}"`, () => stage.tail.some((line) => line.endsWith(text)));

// What it wrote, and the state of its rooms.
async function keep(from, folder) {
  const stage = path.join(from, `${PORT}`);
  for (const file of ['said.log', 'weir/weir.log', 'synapse/synapse.log'].map((file) => path.join(file === 'said.log' ? from : stage, file))) {
    if (fs.existsSync(file)) fs.copyFileSync(file, path.join(folder, `try-${path.basename(file)}`));
  }
  const [kept] = JSON.parse(fs.readFileSync(path.join(stage, 'people.json'), 'utf8'));
  const user = new User({ url: `http://127.0.0.1:${PORT + 3}` }, kept);
  const { joined_rooms: rooms } = await user.call('GET', '/_matrix/client/v3/joined_rooms');
  for (const room of rooms) await keepState(folder, user, room);
}

export default [
  {
    name: 'two people in one browser are in a call, and a second start takes less than 15 s',
    async run({ world, note }) {
      const folder = path.join(world.folder, 'try');
      fs.mkdirSync(folder, { recursive: true });
      world.alsoKeep((to) => keep(folder, to));
      const first = await begin(world, folder);
      note(`links after ${(first.took / 1000).toFixed(1)} s`);
      const context = await world.context();
      const people = first.links.map(({ name, url }) => world.visitor(name, url, context));
      for (const [at, person] of people.entries()) {
        await person.join();
        await says(first.stage, `${first.links[at].name} joined the call`);
      }
      // As windows would be: of two tabs one is hidden, and gets no pictures.
      for (const person of people) {
        await person.page.bringToFront();
        await person.seesAndHears();
        await person.keep(world.folder);
      }

      await people[1].hangUp();
      await says(first.stage, `${first.links[1].name} left the call`);
      await stop(first.stage, 'SIGINT');
      expect((await first.stage.exited).code === 0, 'it stops cleanly');

      const second = await begin(world, folder);
      note(`the second time after ${(second.took / 1000).toFixed(1)} s`);
      expect(second.took < SECOND_START_MS, `the second start took ${second.took} ms`);
      await people[0].page.goto(people[0].url);
      await says(second.stage, `${second.links[0].name} joined the call`);
      await stop(second.stage, 'SIGINT');
    },
  },
];
