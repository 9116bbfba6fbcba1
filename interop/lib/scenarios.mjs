// Scenarios: names that are claims, and what proves them.
import fs from 'node:fs';
import path from 'node:path';
import { Late } from './wait.mjs';

const DEADLINE = 180000;
// Of a failure.
const MOST_LINES = 12;

// Those of a folder, a file for each subject.
export async function load(folder) {
  const scenarios = [];
  for (const file of fs.readdirSync(folder).sort()) {
    const { default: found } = await import(new URL(file, folder));
    scenarios.push(...found.map((scenario) => ({ ...scenario, name: `${path.basename(file, '.mjs')}: ${scenario.name}` })));
  }
  return scenarios;
}

// Runs one to its end or its deadline, and tells how it went.
export async function play(scenario, context) {
  const started = Date.now();
  const notes = [];
  let failure;
  let timer;
  try {
    await Promise.race([
      scenario.run({ ...context, note: (text) => notes.push(text) }),
      new Promise((_, reject) => {
        timer = setTimeout(() => reject(new Error('the scenario did not end')), scenario.deadline ?? DEADLINE);
      }),
    ]);
  } catch (error) {
    failure = error;
  }
  clearTimeout(timer);
  const seconds = ((Date.now() - started) / 1000).toFixed(1);
  console.log(`${failure ? (failure instanceof Late ? 'late  ' : 'FAILED') : 'ok    '} ${scenario.name} (${seconds} s)${notes.map((note) => `\n         ${note}`).join('')}`);
  if (failure) console.log(`         ${failure.stack?.split('\n').slice(0, MOST_LINES).join('\n         ')}`);
  return { name: scenario.name, seconds: Number(seconds), notes, failure: failure?.message, isLate: failure instanceof Late };
}

// A machine that is busy with something else may be late once, or twice; whoever is late each time is slow.
export async function playInTime(scenario, context, clear) {
  for (let again = 2; ; again -= 1) {
    const result = await play(scenario, context);
    if (!result.isLate) return result;
    if (again === 0) {
      console.log(`FAILED ${scenario.name}: it was late each time`);
      return result;
    }
    await clear();
  }
}
