/** A number that runs to its new value. The end is always the exact text. */

import { useEffect, useRef, useState } from 'react';

/** Length of a run, in milliseconds. */
const TWEEN_MS = 250;

/** True when the reader asked for less motion. */
export function reducedMotion(): boolean {
  return matchMedia('(prefers-reduced-motion: reduce)').matches;
}

/** What to show for `value` now: numbers on the way, the text itself at rest. */
export function useTween(value: string | null): string | number | null {
  const [shown, setShown] = useState<string | number | null>(value);
  const from = useRef<number | null>(value === null ? null : Number(value));
  const before = useRef<number | null>(from.current);
  useEffect(() => {
    const start = from.current;
    const target = value === null ? null : Number(value);
    // Whole numbers stay whole on the way, also when a run begins in the middle of another.
    const whole = Number.isInteger(target) && Number.isInteger(before.current);
    before.current = target;
    if (start === null || target === null || start === target || reducedMotion() || document.visibilityState !== 'visible') {
      from.current = target;
      setShown(value);
      return undefined;
    }
    const begun = performance.now();
    let frame = requestAnimationFrame(function run(now) {
      const part = Math.min(1, Math.max(0, (now - begun) / TWEEN_MS));
      if (part === 1) {
        from.current = target;
        setShown(value);
        return;
      }
      const eased = 1 - (1 - part) ** 3;
      const between = start + (target - start) * eased;
      from.current = between;
      setShown(whole ? Math.round(between) : between);
      frame = requestAnimationFrame(run);
    });
    return () => cancelAnimationFrame(frame);
  }, [value]);
  return shown;
}
