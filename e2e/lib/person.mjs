// Somebody in front of a browser with Element Call.
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, settle, sleep } from '../../interop/lib/wait.mjs';

const OBSERVER = fs.readFileSync(fileURLToPath(new URL('../page/observer.js', import.meta.url)), 'utf8');
const CONSOLE_LINES = 3000;
// Of 255: tiles without a picture are darker.
const DARK = 20;
const AUDIBLE = 0.0001;
// A tenth of a second, as the jitter buffer counts them.
const SAMPLES = 4800;
// Element Call itself gives a join up before.
const JOIN_DEADLINE = 60000;
const MEDIA_DEADLINE = 60000;
const LOBBY_BUTTON = '[data-testid="lobby_joinCall"]';
// Longer than it takes to join.
const DEVICES_LATE_MS = 8000;
// What a page shows in words, of which a failure tells this much.
const WORDS = 300;

// Runs in a page, whose browser is then busy with other things.
function listDevicesLate(ms) {
  const devices = navigator.mediaDevices;
  const list = devices?.enumerateDevices.bind(devices);
  if (list) devices.enumerateDevices = () => new Promise((done) => setTimeout(done, ms)).then(list);
}

export class Person {
  // `url` is the page that hosts Element Call for this user. Contexts of their own keep pages from sharing storage and
  // visibility; whoever has none shares one.
  constructor(user, browser, url, context) {
    Object.assign(this, { user, browser, url, context, console: [], restarts: 0, slowDevices: false });
  }

  async open() {
    this.context ??= await this.browser.createBrowserContext();
    this.page = await this.context.newPage();
    await this.page.setViewport({ width: 900, height: 600 });
    const note = (line) => {
      this.console.push(`${new Date().toISOString()} ${line.slice(0, 600)}`);
      if (this.console.length > CONSOLE_LINES) this.console.shift();
    };
    this.page.on('console', (message) => note(message.text()));
    // Of the leave that the homeserver sends if it hears no more of the client: in a call nothing else is asked of it. By
    // the address alone, since not every browser's driver shows bodies.
    this.page.on('request', (request) => {
      if (request.method() !== 'OPTIONS' && request.url().includes('/delayed_events/')) this.restarts += 1;
    });
    this.page.on('pageerror', (error) => note(`error: ${error.message}`));
    await this.page.evaluateOnNewDocument(OBSERVER);
    if (this.slowDevices) await this.page.evaluateOnNewDocument(listDevicesLate, DEVICES_LATE_MS);
    await this.page.goto(this.url);
    return this;
  }

  // Opens the page, and is in the call when this returns.
  async join() {
    await this.open();
    await settle(`${this.user.name} is in the call`, async () => (await this.sees()).connections.includes('connected'), JOIN_DEADLINE);
    return this;
  }

  // Opens the page, which must have a lobby, and returns where a click would join.
  async standsAtTheDoor() {
    await this.open();
    await settle(`${this.user.name} can join`, async () =>
      // Before it has found camera and microphone, Element Call would join without them.
      await this.page.evaluate(() => window.found?.audio && window.found.video) &&
      this.frame.evaluate((button) => document.querySelector(button) !== null, LOBBY_BUTTON), JOIN_DEADLINE);
    return this;
  }

  // Joins from the lobby, and says how many milliseconds later the first picture of somebody else was on show.
  async joinsUntilAPicture() {
    const shown = this.frame.evaluate((button) => window.clickToPicture(button), LOBBY_BUTTON);
    const late = sleep(MEDIA_DEADLINE).then(() => { throw new Error(`${this.user.name} sees no picture`); });
    return Promise.race([shown, late]);
  }

  get frame() {
    return this.page.frames().find((frame) => frame.url().includes('/call/index.html'));
  }

  sees() {
    return this.frame.evaluate(() => window.observer());
  }

  // Until so many pictures from others move, decode and change, and sound comes and is played.
  async seesAndHears(others = 1) {
    const prints = new Map();
    const before = (await this.sees()).audios.reduce((sum, { emitted }) => sum + emitted, 0);
    await settle(`${this.user.name} sees and hears ${others}`, async () => {
      const { videos, audios, playing, connections, text } = await this.sees();
      for (const { track, print, brightest } of videos) {
        if (brightest > DARK) prints.set(track, (prints.get(track) ?? new Set()).add(print));
      }
      const moving = videos.filter(({ track, frames }) => frames >= 10 && prints.get(track)?.size >= 3);
      const heard = audios.filter(({ energy }) => energy > AUDIBLE);
      const emitted = audios.reduce((sum, audio) => sum + audio.emitted, 0);
      expect(moving.length >= others, `${moving.length} move of ${JSON.stringify(videos)}, heard ${JSON.stringify(audios)}, ` +
        `connections ${connections}, "${text.slice(0, WORDS)}"`);
      expect(heard.length >= 1 && emitted >= before + SAMPLES, `heard only ${JSON.stringify(audios)}`);
      expect(playing, 'sound comes, but nothing plays it');
      return true;
    }, MEDIA_DEADLINE);
  }

  // Until no picture from anybody else is on show.
  async seesNobody() {
    await settle(`${this.user.name} sees nobody any more`, async () => (await this.sees()).videos.length === 0);
  }

  async seesPictures(count) {
    await settle(`${this.user.name} sees ${count} pictures`, async () => (await this.sees()).videos.length === count);
  }

  // As the button does; the button itself hides when nothing moves.
  async hangUp() {
    await this.page.evaluate(() => { window.hangUp(); });
  }

  async shareScreen() {
    const button = '[data-testid="incall_screenshare"]';
    await settle('the button is there', () => this.frame.evaluate((button) => document.querySelector(button) !== null, button));
    await this.frame.evaluate((button) => document.querySelector(button).click(), button);
  }

  // The whole browser, with every process of its group.
  kill() {
    process.kill(-this.browser.process().pid, 'SIGKILL');
    this.killed = true;
  }

  // What a person needs who looks for the cause.
  async keep(folder) {
    const file = (kind) => path.join(folder, `${this.user.name.toLowerCase()}.${kind}`);
    fs.writeFileSync(file('console.log'), this.console.join('\n'));
    if (!this.page || this.killed) return;
    const note = async () => fs.writeFileSync(file('sees.json'), JSON.stringify(await this.sees(), null, 1));
    const kept = Promise.allSettled([note(), this.page.screenshot({ path: file('png') })]);
    await Promise.race([kept, sleep(5000)]);
  }

  async close() {
    if (!this.killed) await this.context?.close().catch(() => {});
  }
}
