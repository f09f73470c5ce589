/** Pictures of the page, to be looked at: three sizes, light or dark, into `output`. With UPDATE_PICTURE=1 also the README's. */

import assert from 'node:assert/strict';
import { statSync } from 'node:fs';
import { resolve } from 'node:path';
import { openPage, PHONE, picture, row, still, WIDE } from './browser.mjs';

const README_PICTURE = resolve(import.meta.dirname, '../../clients/dashboard/picture.png');
const README_PICTURE_BYTES_MAX = 250 * 1024;
const LOOKS = [
  [WIDE, 'light'],
  [WIDE, 'dark'],
  [{ width: 1024, height: 768 }, 'light'],
  [PHONE, 'dark'],
];
/** Bookings as they come in: the one of a line is confirmed while the next is new. */
const NEWS = [
  { customer: 'Elif Kaya', country: 'TR', category: 'property', title: 'Sea-view villa in Kaş', duration: '5 nights', amount: 31500 },
  { customer: 'Lukas Weber', country: 'DE', category: 'transfer', title: 'Antalya Airport to Belek', duration: '40 minutes', amount: 840.5 },
  { customer: 'Charlotte Hughes', country: 'GB', category: 'tour', title: 'Balloon flight over Cappadocia', duration: '3 hours', amount: 4250 },
  { customer: 'Deniz Arslan', country: 'TR', category: 'car', title: 'Electric hatchback, Izmir', duration: '4 days', amount: 6900 },
  { customer: 'Camille Moreau', country: 'FR', category: 'property', title: 'Cave suite in Göreme', duration: '2 nights', amount: 7800 },
  { customer: 'Sanne de Vries', country: 'NL', category: 'tour', title: 'Bosphorus cruise at sunset', duration: '2 hours', amount: 1350 },
  { customer: 'Zeynep Çelik', country: 'TR', category: 'transfer', title: 'Bodrum Airport to Yalıkavak', duration: '55 minutes', amount: 1240 },
];

/** Takes them all. */
export async function takePictures(browser, system, booking) {
  const news = NEWS.map((data) => booking(data));
  await system.publish('booking:new', news[0]);
  let turn = 0;
  for (const [viewport, colorScheme] of LOOKS) {
    const page = await openPage(browser, system.url, { viewport, colorScheme, deviceScaleFactor: 1 });
    await row(page, news[turn].id).waitFor();
    await system.publish('booking:confirmed', news[turn]);
    await row(page, news[turn].id).and(page.locator('[data-mark="booking:confirmed"]')).waitFor();
    turn += 1;
    await system.publish('booking:new', news[turn]);
    await row(page, news[turn].id).waitFor();
    // What happened is announced.
    await page.getByTestId('toast').nth(1).waitFor();
    await still(page);
    await page.evaluate(() => document.fonts.ready);
    await picture(page, `${viewport.width}-${colorScheme}`);
    if (process.env.UPDATE_PICTURE === '1' && viewport.width === 1440 && colorScheme === 'light') {
      await page.screenshot({ path: README_PICTURE });
      const bytes = statSync(README_PICTURE).size;
      assert.ok(bytes <= README_PICTURE_BYTES_MAX, `${README_PICTURE}: ${bytes} bytes`);
    }
    assert.deepEqual(page.complaints, []);
    await page.context().close();
  }
}
