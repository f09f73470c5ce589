/**
 * News for those who do not look: a sound for each kind, made by Web Audio, and desktop notifications. Both are off until
 * the reader wishes them, and neither is tried before the browser allows it.
 */

import type { Sound } from './page.js';
import { settings } from './settings.js';
import type { News } from './toasts.js';

/** Notes of a sound: frequency in Hz, beginning and length in seconds. */
const NOTES: Record<Sound, readonly (readonly [hertz: number, at: number, length: number])[]> = {
  info: [[660, 0, 0.12]],
  success: [[587, 0, 0.1], [880, 0.1, 0.16]],
  alert: [[740, 0, 0.12], [740, 0.18, 0.12], [554, 0.36, 0.2]],
};
/** Sounds closer together than this are one, in milliseconds: a flood is not a concert. */
const BREATH_MS = 400;
/** Loudest amplitude of a note at full volume. */
const PEAK = 0.25;

let audio: AudioContext | undefined;
let lastAt = -Infinity;

/** Says what is new to the ears and to the desktop, as far as the reader wishes it on this machine. */
export function announce(news: News, sound: Sound | undefined, desktop: boolean): void {
  if (sound !== undefined && settings.now.sounds) play(sound, settings.now.volume);
  if (desktop && settings.now.desktop && document.visibilityState !== 'visible') show(news);
}

/** Plays a sound. Nothing is heard before the reader has touched the page: browsers wish it so. Answers whether it sounds. */
export function play(sound: Sound, volume: number): boolean {
  if (navigator.userActivation?.hasBeenActive === false || performance.now() - lastAt < BREATH_MS) return false;
  try {
    audio ??= new AudioContext();
    if (audio.state === 'suspended') void audio.resume();
    lastAt = performance.now();
    for (const [hertz, at, length] of NOTES[sound]) note(audio, hertz, audio.currentTime + at, length, volume);
    document.documentElement.dataset['sound'] = sound;
    return true;
  } catch {
    // No sound device, or none allowed: what is on the screen stays.
    return false;
  }
}

/** Asks for desktop notifications; only ever on a click. Answers whether they are allowed. */
export async function askForDesktop(): Promise<boolean> {
  if (!('Notification' in globalThis)) return false;
  if (Notification.permission === 'default') return (await Notification.requestPermission()) === 'granted';
  return Notification.permission === 'granted';
}

function note(context: AudioContext, hertz: number, from: number, length: number, volume: number): void {
  const tone = context.createOscillator();
  const loudness = context.createGain();
  tone.type = 'sine';
  tone.frequency.value = hertz;
  loudness.gain.setValueAtTime(0, from);
  loudness.gain.linearRampToValueAtTime(PEAK * volume, from + 0.01);
  loudness.gain.exponentialRampToValueAtTime(0.0001, from + length);
  tone.connect(loudness).connect(context.destination);
  tone.start(from);
  tone.stop(from + length);
}

function show(news: News): void {
  try {
    if (!('Notification' in globalThis) || Notification.permission !== 'granted') return;
    // The tag lets several tabs show one notification.
    const shown = new Notification(news.title, { body: news.line, tag: news.id, silent: true });
    shown.onclick = () => {
      window.focus();
      shown.close();
    };
  } catch {
    // Some browsers show them from service workers alone.
  }
}
