// Runs the scenarios: Element Call on federated homeservers, in the network namespace that the caller made.
import fs from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { stopAll } from '../deploy/stage/lib/program.mjs';
import { Plays, load } from '../interop/lib/scenarios.mjs';
import { World } from './lib/world.mjs';

const { values: options, positionals: filters } = parseArgs({
  allowPositionals: true,
  options: {
    weir: { type: 'string' },
    synapse: { type: 'string' },
    results: { type: 'string' },
    lane: { type: 'string' },
    list: { type: 'boolean', default: false },
  },
});

const scenarios = await load(new URL('scenarios/', import.meta.url));
// Scenarios that are idle most of their time are played beside the others, on servers of their own.
const isOfLane = ({ idle }) => !options.lane || options.lane === (idle ? 'idle' : 'busy');
const isNamed = ({ name }) => filters.length === 0 || filters.some((filter) => name.includes(filter));
const chosen = scenarios.filter((scenario) => isOfLane(scenario) && isNamed(scenario));
if (options.list) {
  for (const { name } of scenarios) console.log(name);
  process.exit(0);
}

fs.rmSync(options.results, { recursive: true, force: true });
const world = new World({ weir: options.weir, synapse: options.synapse, folder: path.join(options.results, 'servers') });
let marks;
const plays = new Plays({
  async failed({ name }) {
    const folder = path.join(options.results, name.replace(/[^a-zA-Z0-9]+/g, '-'));
    await world.keep(folder, marks);
    console.log(`         screenshots and logs: ${folder}`);
  },
  async clear() {
    await world.clear();
    marks = world.marks();
  },
});
try {
  await world.start();
  marks = world.marks();
  for (const scenario of chosen) await plays.play(scenario, { world });
  await world.end();
} finally {
  await stopAll();
}
for (const focus of world.allFoci()) {
  const panics = fs.readFileSync(focus.log, 'utf8').split('\n').filter((line) => line.includes('panicked'));
  if (panics.length > 0) plays.fails(`${focus.name} never panics`, panics.join('\n'));
}
const { failed, text } = plays.summary();
fs.writeFileSync(path.join(options.results, 'results.json'), JSON.stringify(plays.results, null, 2));
console.log(`end to end: ${text}`);
process.exit(failed > 0 || plays.results.length === 0 ? 1 : 0);
