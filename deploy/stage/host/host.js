// A page that hosts Element Call as Element Web does: a widget whose host speaks to the homeserver for it.
import { ClientWidgetApi, Widget } from 'matrix-widget-api';
import { Driver } from './driver.js';
import { Room } from './room.js';
import { Homeserver } from './homeserver.js';

const ACTIONS = ['io.element.join', 'io.element.device_mute', 'set_always_on_screen', 'im.vector.hangup', 'io.element.close'];
const WIDGET = 'element-call';

function widgetUrl(session) {
  const url = new URL('/call/index.html', location.href);
  url.hash = `?${new URLSearchParams({
    widgetId: WIDGET, parentUrl: location.origin + location.pathname, baseUrl: session.homeserver, roomId: session.room,
    userId: session.user, deviceId: session.device, perParticipantE2EE: 'true', intent: 'join_existing', skipLobby: 'true',
    confineToRoom: 'true', header: 'none', lang: 'en', theme: 'dark',
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
  // `content_loaded` is left to the library: it begins the capabilities' negotiation.
  for (const action of ACTIONS) {
    api.on(`action:${action}`, (event) => {
      event.preventDefault();
      api.transport.reply(event.detail, {});
      if (action === 'im.vector.hangup' || action === 'io.element.close') setTimeout(() => frame.isConnected && say('You have left the call.'));
    });
  }
  // For whoever drives this page.
  window.hangUp = () => api.transport.send('im.vector.hangup', {});
  frame.src = url;
  await room.follow(api, () => say('You are no longer in the room.'));
}

main().catch((error) => say(`The call cannot start: ${error.message}`));
