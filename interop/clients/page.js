// A livekit-client in a page, driven by commands. Bundled once for each version under test.
import * as lk from 'livekit-client';

const room = {};
const received = [];
const events = [];

function note(name, detail = {}) {
  events.push({ at: Date.now(), name, ...detail });
}

function attach(track) {
  const element = track.attach();
  element.muted = false;
  element.width = 320;
  document.body.append(element);
}

// The receiver's statistics of one remote publication.
async function inbound(publication) {
  const report = await publication.track?.getRTCStatsReport?.() ?? await publication.track?.receiver?.getStats();
  const found = {};
  for (const entry of report?.values() ?? []) {
    if (entry.type === 'inbound-rtp') Object.assign(found, entry);
  }
  return found;
}

const commands = {
  async connect({ url, token, options = {}, connect = {}, passphrase }) {
    const settings = { dynacast: true, adaptiveStream: false, ...options };
    if (passphrase) {
      const keyProvider = new lk.ExternalE2EEKeyProvider();
      await keyProvider.setKey(passphrase);
      settings.encryption = { keyProvider, worker: new Worker(`/e2ee-worker.js${location.search}`) };
    }
    const r = new lk.Room(settings);
    room.r = r;
    r.on('trackSubscribed', (track, publication, participant) => {
      note('trackSubscribed', { sid: publication.trackSid, from: participant.identity, kind: track.kind });
      attach(track);
    });
    for (const name of ['disconnected', 'reconnecting', 'signalReconnecting', 'reconnected', 'connected']) {
      r.on(name, (reason) => note(name, { reason }));
    }
    r.on('trackUnsubscribed', (track, publication, participant) =>
      note('trackUnsubscribed', { sid: publication.trackSid, from: participant.identity }));
    r.on('trackUnpublished', (publication, participant) =>
      note('trackUnpublished', { sid: publication.trackSid, from: participant.identity }));
    r.on('trackMuted', (publication, participant) => note('trackMuted', { from: participant.identity, source: publication.source }));
    r.on('trackUnmuted', (publication, participant) => note('trackUnmuted', { from: participant.identity, source: publication.source }));
    r.on('participantConnected', (participant) => note('participantConnected', { from: participant.identity }));
    r.on('participantDisconnected', (participant) => note('participantDisconnected', { from: participant.identity }));
    r.on('participantMetadataChanged', (_, participant) => note('metadata', { from: participant.identity, metadata: participant.metadata }));
    r.on('participantNameChanged', (name, participant) => note('name', { from: participant.identity, value: name }));
    r.on('participantAttributesChanged', (changed, participant) => note('attributes', { from: participant.identity, changed }));
    r.on('activeSpeakersChanged', (speakers) => note('speakers', { who: speakers.map((s) => s.identity) }));
    r.on('connectionQualityChanged', (quality, participant) => note('quality', { from: participant.identity, quality }));
    r.on('trackSubscriptionFailed', (sid, participant, error) => note('subscriptionFailed', { sid, from: participant.identity, error }));
    r.on('trackSubscriptionPermissionChanged', (publication, status, participant) =>
      note('permission', { sid: publication.trackSid, from: participant.identity, status }));
    r.on('encryptionError', (error) => note('encryptionError', { error: String(error) }));
    r.on('dataReceived', (payload, participant, kind, topic) =>
      received.push({ from: participant?.identity, topic, bytes: payload.length, text: payload.length < 1000 ? new TextDecoder().decode(payload) : undefined }));
    r.registerTextStreamHandler?.('text', async (reader, from) => {
      const text = await reader.readAll();
      received.push({ from: from.identity, topic: 'text', bytes: text.length, text: text.length < 1000 ? text : undefined, intact: isPattern(text) });
    });
    r.registerRpcMethod?.('echo', async (data) => `${data.callerIdentity}:${data.payload}`);
    if (passphrase) await r.setE2EEEnabled(true);
    const start = performance.now();
    await r.connect(url, token, { autoSubscribe: true, ...connect });
    return { sid: r.localParticipant.sid, ms: performance.now() - start };
  },

  async publish({ source = 'camera', codec, simulcast = true, layers, options = {} }) {
    const participant = room.r.localParticipant;
    if (source === 'microphone') {
      const publication = await participant.setMicrophoneEnabled(true);
      return { sid: publication.trackSid };
    }
    const resolution = options.resolution ?? { width: 1280, height: 720, frameRate: 15 };
    const [track] = source === 'screen'
      ? [screenTrack()]
      : await lk.createLocalTracks({ video: { resolution } });
    const publication = await participant.publishTrack(track, {
      source: source === 'screen' ? lk.Track.Source.ScreenShare : lk.Track.Source.Camera,
      videoCodec: codec, simulcast, backupCodec: false, ...options.publish,
      ...(layers ? { videoSimulcastLayers: layers } : {}),
    });
    return { sid: publication.trackSid };
  },

  async unpublish({ sid }) {
    const publication = [...room.r.localParticipant.trackPublications.values()].find((p) => p.trackSid === sid);
    await room.r.localParticipant.unpublishTrack(publication.track);
    return {};
  },

  async mute({ sid, muted }) {
    const publication = [...room.r.localParticipant.trackPublications.values()].find((p) => p.trackSid === sid);
    await (muted ? publication.mute() : publication.unmute());
    return {};
  },

  // Every remote track with what has been received of it.
  async remote() {
    const tracks = [];
    for (const participant of room.r.remoteParticipants.values()) {
      for (const publication of participant.trackPublications.values()) {
        const stats = publication.isSubscribed ? await inbound(publication) : {};
        tracks.push({
          from: participant.identity, sid: publication.trackSid, kind: publication.kind, source: publication.source,
          muted: publication.isMuted, subscribed: publication.isSubscribed,
          frames: stats.framesDecoded ?? 0, energy: stats.totalAudioEnergy ?? 0, packets: stats.packetsReceived ?? 0,
          lost: stats.packetsLost ?? 0, width: stats.frameWidth, height: stats.frameHeight, nacks: stats.nackCount,
          keyFrames: stats.keyFramesDecoded, freezes: stats.freezeCount, discarded: stats.packetsDiscarded,
          repaired: stats.retransmittedPacketsReceived ?? 0, codec: publication.mimeType, jitterBufferFlushes: stats.jitterBufferFlushes,
        });
      }
    }
    return tracks;
  },

  async sent() {
    const all = [];
    for (const publication of room.r.localParticipant.trackPublications.values()) {
      const report = await publication.track?.sender?.getStats();
      for (const entry of report?.values() ?? []) {
        if (entry.type === 'outbound-rtp') {
          all.push({
            sid: publication.trackSid, rid: entry.rid, active: entry.active, packets: entry.packetsSent, frames: entry.framesEncoded,
            framesSent: entry.framesSent, bytes: entry.bytesSent, width: entry.frameWidth, retransmitted: entry.retransmittedPacketsSent, target: entry.targetBitrate, nacks: entry.nackCount,
          });
        }
      }
    }
    return all;
  },

  // What may explain that nothing comes: of each track that is sent, its source and what is made of it.
  async inspect() {
    const sent = [];
    for (const publication of room.r.localParticipant.trackPublications.values()) {
      const report = [...(await publication.track?.sender?.getStats())?.values() ?? []];
      const media = publication.track?.mediaStreamTrack;
      const source = report.find((entry) => entry.type === 'media-source');
      sent.push({
        sid: publication.trackSid, state: media?.readyState, muted: media?.muted, pictures: source?.frames, rate: source?.framesPerSecond,
        wished: publication.track?.sender?.getParameters().encodings.map((encoding) => encoding.active),
        layers: report.filter((entry) => entry.type === 'outbound-rtp').map((entry) => ({
          rid: entry.rid, active: entry.active, encoded: entry.framesEncoded, sent: entry.packetsSent, target: entry.targetBitrate,
          limited: entry.qualityLimitationReason, keyFrames: entry.keyFramesEncoded, asked: entry.pliCount,
        })),
      });
    }
    return { state: room.r.state, sent };
  },

  // How long the next picture of this width takes, in milliseconds.
  async quality({ sid, quality, width, timeout = 15000 }) {
    const publication = find(sid);
    const start = performance.now();
    publication.setVideoQuality(quality);
    while (performance.now() - start < timeout) {
      const stats = await inbound(publication);
      if (stats.frameWidth === width) return { ms: performance.now() - start };
      await new Promise((done) => setTimeout(done, 10));
    }
    throw new Error(`still ${(await inbound(publication)).frameWidth} wide`);
  },

  async enable({ sid, enabled }) {
    find(sid).setEnabled(enabled);
    return {};
  },

  async subscribe({ sid, subscribed }) {
    find(sid).setSubscribed(subscribed);
    return {};
  },

  async permit({ all, permissions }) {
    room.r.localParticipant.setTrackSubscriptionPermissions(all, permissions);
    return {};
  },

  async send({ text, topic, to, reliable = true }) {
    await room.r.localParticipant.publishData(new TextEncoder().encode(text), { reliable, topic, destinationIdentities: to });
    return {};
  },

  async sendText({ bytes, to }) {
    await room.r.localParticipant.sendText(pattern(bytes), { topic: 'text', destinationIdentities: to });
    return {};
  },

  async rpc({ to, payload }) {
    return { response: await room.r.localParticipant.performRpc({ destinationIdentity: to, method: 'echo', payload }) };
  },

  async update({ name, metadata, attributes }) {
    const participant = room.r.localParticipant;
    if (name) await participant.setName(name);
    if (metadata) await participant.setMetadata(metadata);
    if (attributes) await participant.setAttributes(attributes);
    return {};
  },

  async participants() {
    return [...room.r.remoteParticipants.values()].map((p) => ({ identity: p.identity, sid: p.sid, name: p.name, metadata: p.metadata, attributes: p.attributes }));
  },

  // Cuts the WebSocket as a failing network does: without a word to the server.
  async cutSignal() {
    const client = room.r.engine.client;
    (client.ws ?? client.signalWriter)?.close?.();
    return {};
  },

  // The path in use.
  async path() {
    const pc = room.r.engine.pcManager.publisher;
    const stats = [...(await pc.getStats()).values()];
    const transport = stats.find((entry) => entry.type === 'transport');
    const pair = stats.find((entry) => entry.id === transport?.selectedCandidatePairId);
    const [local, remote] = [pair?.localCandidateId, pair?.remoteCandidateId].map((id) => stats.find((entry) => entry.id === id));
    return { port: local?.port, protocol: local?.protocol, family: remote?.address?.includes(':') ? 'IPv6' : 'IPv4' };
  },

  async simulate({ scenario }) {
    await room.r.simulateScenario(scenario);
    return {};
  },

  async received() { return received; },
  async events() { return events; },
  async state() { return { state: room.r.state, sid: room.r.localParticipant.sid }; },
  async disconnect() {
    await room.r.disconnect();
    return {};
  },
};

function find(sid) {
  for (const participant of room.r.remoteParticipants.values()) {
    const publication = participant.trackPublications.get(sid);
    if (publication) return publication;
  }
  throw new Error(`no remote track ${sid}`);
}

// A page cannot capture a screen without a person; a canvas moves as well.
function screenTrack() {
  const canvas = document.createElement('canvas');
  [canvas.width, canvas.height] = [1280, 720];
  const context = canvas.getContext('2d');
  let step = 0;
  setInterval(() => {
    context.fillStyle = `hsl(${step % 360} 80% 50%)`;
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.fillStyle = 'white';
    context.font = '80px sans-serif';
    context.fillText(String(step++), 100 + (step % 600), 300);
  }, 100);
  return canvas.captureStream(10).getVideoTracks()[0];
}

// Text whose every place is known, so that a loss or a swap shows.
function pattern(bytes) {
  let text = '';
  for (let at = 0; text.length < bytes; at += 1) text += `${at},`;
  return text.slice(0, bytes);
}

function isPattern(text) {
  return text === pattern(text.length);
}

window.client = async (name, argument) => {
  try {
    return { ok: await commands[name](argument ?? {}) };
  } catch (error) {
    return { error: `${error.name}: ${error.message}`, reason: error.reason, status: error.status };
  }
};
window.ready = true;
