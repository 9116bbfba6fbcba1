// Browsers with cameras and microphones of their own making, which ask nobody.
import puppeteer from 'puppeteer-core';

const CHROMIUM_FLAGS = [
  '--no-sandbox', '--disable-gpu', '--use-fake-ui-for-media-stream', '--use-fake-device-for-media-stream',
  '--autoplay-policy=no-user-gesture-required', '--disable-background-networking', '--disable-component-update', '--no-first-run',
  '--disable-renderer-backgrounding', '--disable-background-timer-throttling', '--disable-backgrounding-occluded-windows',
];
const FIREFOX_PREFERENCES = {
  'media.navigator.streams.fake': true, 'media.navigator.permission.disabled': true, 'media.autoplay.default': 0,
  'media.peerconnection.ice.obfuscate_host_addresses': false, 'media.autoplay.blocking_policy': 0,
  'dom.min_background_timeout_value': 4, 'widget.windows.window_occlusion_tracking.enabled': false,
};

export async function launch(name, options = {}) {
  const once = () => name === 'firefox'
    ? puppeteer.launch({ browser: 'firefox', executablePath: '/usr/bin/firefox-esr', headless: true, extraPrefsFirefox: FIREFOX_PREFERENCES, timeout: 90000, ...options })
    : puppeteer.launch({ executablePath: '/usr/bin/chromium', headless: true, args: CHROMIUM_FLAGS, timeout: 90000, protocolTimeout: 120000, ...options });
  // A cold browser on a loaded machine sometimes misses its first start.
  return once().catch(once);
}
