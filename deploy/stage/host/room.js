// The room of the call: its state and sticky events, kept by /sync and fed to the widget.
import { CLIENT } from './homeserver.js';

const RETRY_MS = 1000;

export class Room {
  constructor(homeserver, { room, user }) {
    Object.assign(this, { homeserver, id: room, user, state: new Map(), sticky: new Map(), since: null });
    this.path = `${CLIENT}/rooms/${encodeURIComponent(room)}`;
  }

  async load() {
    const first = await this.homeserver.call('GET', `${CLIENT}/sync?timeout=0&filter=${this.filter(1)}`);
    this.since = first.next_batch;
    const joined = first.rooms?.join?.[this.id];
    // A sticky event that stands in the timeline is not said again among the sticky ones.
    this.keepSticky([...(joined?.msc4354_sticky?.events ?? []), ...(joined?.timeline?.events ?? []).filter(isSticky)]);
    for (const event of await this.homeserver.call('GET', `${this.path}/state`)) this.keepState(event);
  }

  // The widget works out memberships while it still takes state in, and finds no room unless its own comes first.
  stateOf(type, key) {
    const found = [...this.state.values()].filter((event) => event.type === type && (key === undefined || event.state_key === key));
    return found.sort((a, b) => Number(b.state_key === this.user) - Number(a.state_key === this.user));
  }

  // Feeds what comes to the widget, until the user is no longer in the room.
  async follow(api, onRemoved) {
    for (;;) {
      let changes;
      try {
        changes = await this.homeserver.call('GET', `${CLIENT}/sync?timeout=20000&since=${this.since}&filter=${this.filter(50)}`);
      } catch (error) {
        console.error('sync', error.message);
        await new Promise((done) => setTimeout(done, RETRY_MS));
        continue;
      }
      this.since = changes.next_batch;
      for (const event of changes.to_device?.events ?? []) api.feedToDevice(event, true).catch(console.error);
      if (changes.rooms?.leave?.[this.id]) return onRemoved();
      const joined = changes.rooms?.join?.[this.id];
      if (joined) await this.take(joined, api);
    }
  }

  // What was taken in of an event is not waited for, nor of a key: Element Call may answer late to one, and must have the next
  // all the same. They arrive in the order in which they are fed.
  async take(joined, api) {
    const feed = async (event, isState) => {
      if (isState) await api.feedStateUpdate(event).catch(console.error);
      api.feedEvent(event).catch(console.error);
    };
    for (const event of joined.state?.events ?? []) {
      this.keepState(event);
      await api.feedStateUpdate(event).catch(console.error);
    }
    this.keepSticky(joined.msc4354_sticky?.events ?? []);
    for (const event of joined.msc4354_sticky?.events ?? []) await feed(event, false);
    for (const event of joined.timeline?.events ?? []) {
      const isState = event.state_key !== undefined;
      if (isState) this.keepState(event);
      if (isSticky(event)) this.keepSticky([event]);
      event.room_id = this.id;
      await feed(event, isState);
    }
  }

  keepState(event) {
    event.room_id = this.id;
    this.state.set(`${event.type}\0${event.state_key}`, event);
  }

  keepSticky(events) {
    for (const event of events) {
      event.room_id = this.id;
      this.sticky.set(event.event_id, event);
    }
  }

  filter(limit) {
    return encodeURIComponent(JSON.stringify({ room: { rooms: [this.id], timeline: { limit }, include_leave: true } }));
  }
}

const isSticky = (event) => event.msc4354_sticky !== undefined;
