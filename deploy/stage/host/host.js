// A page that hosts Element Call as Element Web does: a widget whose host speaks to the homeserver for it.
import { ClientWidgetApi, Widget } from 'matrix-widget-api';
import { Driver } from './driver.js';
import { Room } from './room.js';
import { Homeserver } from './homeserver.js';

const JOIN = 'io.element.join';
const DEVICES = 'io.element.device_mute';
const ACTIONS = [JOIN, DEVICES, 'set_always_on_screen', 'im.vector.hangup', 'io.element.close'];
// After its first word Element Call may take this long to find camera and microphone.
const DEVICES_MS = 20000;
const WIDGET = 'element-call';

function widgetUrl(session) {
  const url = new URL('/call/index.html', location.href);
  url.hash = `?${new URLSearchParams({
    widgetId: WIDGET, parentUrl: location.origin + location.pathname, baseUrl: session.homeserver, roomId: session.room,
    userId: session.user, deviceId: session.device, perParticipantE2EE: 'true', intent: 'join_existing',
    skipLobby: String(!session.lobby), preload: String(!session.lobby), confineToRoom: 'true', header: 'none', lang: 'en', theme: 'dark',
  })}`;
  return url.href;
}

// In place of the call, which is over.
function say(text) {
  document.getElementById('call').remove();
  document.getElementById('text').textContent = text;
  document.getElementById('over').hidden = false;
  document.getElementById('again').onclick = () => location.reload();
}

// Element Call publishes what it has found by the time it joins, and what it finds later never. On a busy machine a browser
// takes seconds to list its devices, so it is told to join when it says that it would use all that the browser has.
async function joinWithDevices(api, found) {
  const listed = await navigator.mediaDevices.enumerateDevices().catch(() => []);
  const has = (kind) => listed.some((device) => device.kind === kind);
  const isReady = ({ audio, video }) => (audio || !has('audioinput')) && (video || !has('videoinput'));
  await found.until(isReady, DEVICES_MS);
  await api.transport.send(JOIN, { audioInput: null, videoInput: null });
}

// What Element Call says that it would publish now.
class Found {
  constructor() {
    Object.assign(this, { audio: false, video: false, isThere: false, changed: () => {} });
  }

  note({ audio_enabled: audio, video_enabled: video }) {
    Object.assign(this, { audio, video, isThere: true });
    this.changed();
  }

  // Until `check`, or until so long after it was first heard of.
  until(check, patience) {
    return new Promise((done) => {
      let timer;
      this.changed = () => {
        if (!this.isThere) return;
        if (check(this)) done();
        else timer ??= setTimeout(done, patience);
      };
      this.changed();
    });
  }
}

async function main() {
  const session = await (await fetch('/session.json')).json();
  document.title = session.name;
  const homeserver = new Homeserver(session);
  const room = new Room(homeserver, session);
  await room.load();

  const frame = document.getElementById('call');
  const url = widgetUrl(session);
  const widget = new Widget({
    id: WIDGET, creatorUserId: session.user, type: 'm.call', name: 'Element Call', url, waitForIframeLoad: false, data: {},
  });
  const api = new ClientWidgetApi(widget, frame, new Driver(homeserver, room));
  api.setViewedRoomId(session.room);
  const found = new Found();
  // `content_loaded` is left to the library: it begins the capabilities' negotiation.
  for (const action of ACTIONS) {
    api.on(`action:${action}`, (event) => {
      event.preventDefault();
      api.transport.reply(event.detail, {});
      if (action === DEVICES) found.note(event.detail.data);
      if (action === 'im.vector.hangup' || action === 'io.element.close') setTimeout(() => frame.isConnected && say('You have left the call.'));
    });
  }
  // For whoever drives this page.
  window.hangUp = () => api.transport.send('im.vector.hangup', {});
  window.found = found;
  frame.src = url;
  if (!session.lobby) joinWithDevices(api, found).catch((error) => console.error('join', error));
  await room.follow(api, () => say('You are no longer in the room.'));
}

main().catch((error) => say(`The call cannot start: ${error.message}`));
