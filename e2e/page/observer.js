// Runs in every page before its own scripts: notes peer connections and what is local, and answers what is seen and heard.
(() => {
  if (window.observer || !window.RTCPeerConnection) return;
  const connections = [];
  const local = new Set();
  const Native = window.RTCPeerConnection;
  window.RTCPeerConnection = class extends Native {
    constructor(...args) {
      super(...args);
      connections.push(this);
    }

    addTransceiver(track, ...args) {
      if (track?.id) local.add(track.id);
      return super.addTransceiver(track, ...args);
    }

    addTrack(track, ...args) {
      local.add(track.id);
      return super.addTrack(track, ...args);
    }
  };

  const devices = navigator.mediaDevices;
  const capture = (name, native) => {
    devices[name] = async (...args) => {
      const stream = await native(...args);
      for (const track of stream.getTracks()) local.add(track.id);
      return stream;
    };
  };
  if (devices) capture('getUserMedia', devices.getUserMedia.bind(devices));
  // Nobody is there to choose a screen. A canvas moves as well.
  if (devices) capture('getDisplayMedia', async () => screen());

  function screen() {
    const canvas = Object.assign(document.createElement('canvas'), { width: 640, height: 360 });
    const context = canvas.getContext('2d');
    let step = 0;
    setInterval(() => {
      step += 1;
      context.fillStyle = `hsl(${(step * 7) % 360} 80% 50%)`;
      context.fillRect(0, 0, 640, 360);
      context.fillStyle = 'white';
      context.font = '80px sans-serif';
      context.fillText(`screen ${step}`, 80, 200);
    }, 100);
    return canvas.captureStream(10);
  }

  // A picture's fingerprint, and its brightest value: a dark tile never changes.
  function picture(video) {
    const canvas = Object.assign(document.createElement('canvas'), { width: 32, height: 18 });
    const context = canvas.getContext('2d');
    context.drawImage(video, 0, 0, 32, 18);
    const { data } = context.getImageData(0, 0, 32, 18);
    let print = 0;
    let brightest = 0;
    for (let at = 0; at < data.length; at += 4) {
      print = (print * 31 + data[at] * 65536 + data[at + 1] * 256 + data[at + 2]) >>> 0;
      brightest = Math.max(brightest, data[at], data[at + 1], data[at + 2]);
    }
    return { print, brightest };
  }

  async function inbound() {
    const streams = [];
    for (const connection of connections.filter((one) => one.connectionState !== 'closed')) {
      for (const report of (await connection.getStats()).values()) {
        if (report.type === 'inbound-rtp') streams.push(report);
      }
    }
    return streams;
  }

  // Clicks, and answers how many milliseconds later the first picture of somebody else was on show.
  window.clickToPicture = (selector) => new Promise((done) => {
    const watched = new WeakSet();
    const look = () => {
      for (const video of document.querySelectorAll('video')) {
        const track = video.srcObject?.getVideoTracks()[0];
        if (!track || local.has(track.id) || watched.has(video)) continue;
        watched.add(video);
        video.requestVideoFrameCallback((shown) => {
          clearInterval(looking);
          done(shown - clicked);
        });
      }
    };
    const looking = setInterval(look, 5);
    const clicked = performance.now();
    document.querySelector(selector).click();
  });

  window.observer = async () => {
    const streams = await inbound();
    const of = (track) => streams.find((stream) => stream.trackIdentifier === track.id);
    const shown = [...document.querySelectorAll('video')].filter((video) => {
      const track = video.srcObject?.getVideoTracks()[0];
      return track && !local.has(track.id) && video.videoWidth > 0;
    });
    return {
      text: document.body?.innerText ?? '',
      // Remote pictures that are on show.
      videos: shown.map((video) => {
        const track = video.srcObject.getVideoTracks()[0];
        return { track: track.id, width: video.videoWidth, frames: of(track)?.framesDecoded ?? 0, ...picture(video) };
      }),
      // What comes of sound, and whether something plays it.
      audios: streams.filter((stream) => stream.kind === 'audio' && stream.packetsReceived > 0).map((stream) => ({
        energy: stream.totalAudioEnergy ?? 0, emitted: stream.jitterBufferEmittedCount ?? 0,
        packets: stream.packetsReceived, packetsLost: stream.packetsLost,
      })),
      playing: [...document.querySelectorAll('audio')].some((audio) =>
        !audio.paused && audio.srcObject?.getAudioTracks().some((track) => track.readyState === 'live' && !local.has(track.id))),
      connections: connections.map((connection) => connection.connectionState),
    };
  };
})();
