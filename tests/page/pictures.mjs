/** Pictures of the page, to be looked at: three sizes, light and dark, into `output`. With UPDATE_PICTURE=1 also the README's. */

import assert from 'node:assert/strict';
import { mkdirSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { eventually, openPage } from './browser.mjs';

const OUTPUT = resolve(import.meta.dirname, 'output');
const README_PICTURE = resolve(import.meta.dirname, '../../clients/dashboard/picture.png');
const README_PICTURE_BYTES_MAX = 250 * 1024;
const SIZES = [
  { width: 1440, height: 900 },
  { width: 1024, height: 768 },
  { width: 390, height: 844 },
];
/** Two bookings as they come in, one confirmed. */
const NEWS = [
  { customer: 'Elif Kaya', country: 'TR', category: 'property', title: 'Sea-view villa in Kaş', duration: '5 nights', amount: 31500 },
  { customer: 'Lukas Weber', country: 'DE', category: 'transfer', title: 'Antalya Airport to Belek', duration: '40 minutes', amount: 840.5 },
];

/** Takes them all. */
export async function takePictures(browser, system, booking) {
  mkdirSync(OUTPUT, { recursive: true });
  for (const viewport of SIZES) {
    for (const colorScheme of ['light', 'dark']) {
      const page = await openPage(browser, system.url, { viewport, colorScheme, deviceScaleFactor: 1 });
      const news = NEWS.map((data) => booking(data));
      for (const data of news) await system.publish('booking:new', data);
      await system.publish('booking:confirmed', news[0]);
      await eventually('the toasts stand still', async () => {
        const moving = await page.evaluate(() => document.getAnimations().filter((one) => one.playState === 'running' && one.effect?.getComputedTiming().endTime !== Infinity).length);
        return moving === 0 && (await page.getByTestId('toast').count()) === 3;
      });
      await page.evaluate(() => document.fonts.ready);
      await page.screenshot({ path: join(OUTPUT, `${viewport.width}-${colorScheme}.png`) });
      if (process.env.UPDATE_PICTURE === '1' && viewport.width === 1440 && colorScheme === 'light') {
        await page.screenshot({ path: README_PICTURE });
        const bytes = statSync(README_PICTURE).size;
        assert.ok(bytes <= README_PICTURE_BYTES_MAX, `${README_PICTURE}: ${bytes} bytes`);
      }
      assert.deepEqual(page.complaints, []);
      await page.context().close();
    }
  }
}
