/**
 * Which rows of a long list are in the document: those on the screen and some beyond it. All rows of a list have one
 * height, so a place is a division and nothing is measured while the reader scrolls.
 */

import { useEffect, useLayoutEffect, useRef, useState, type RefObject } from 'react';
import { flushSync } from 'react-dom';

/** Rows come and go in blocks of so many: scrolling within one draws nothing anew. */
const BLOCK = 4;
/** Rows beyond both ends of the screen at least, so that a quick wheel finds them there. */
const BEYOND = 6;

/** Rows `[first, end)`. */
export interface Span {
  readonly first: number;
  readonly end: number;
}

/** The rows to draw of `count` when the pixels `[from, to)` of the list are seen; `height` is a row's, in pixels. */
export function spanOf(count: number, height: number, from: number, to: number): Span {
  const end = Math.min(count, Math.ceil((Math.ceil(Math.max(0, to) / height) + BEYOND) / BLOCK) * BLOCK);
  const first = Math.max(0, Math.floor((Math.floor(from / height) - BEYOND) / BLOCK) * BLOCK);
  return { first: Math.min(first, Math.max(0, end - BLOCK)), end };
}

/** The rows of `list` to draw, renewed while the window scrolls. */
export function useRowsOnScreen(list: RefObject<HTMLElement | null>, count: number, height: number): Span {
  const [span, setSpan] = useState(() => spanOf(count, height, 0, innerHeight));
  const shown = useRef(span);
  const look = useRef<() => void>(undefined);
  useLayoutEffect(() => {
    let top = 0;
    const see = (): boolean => {
      const next = spanOf(count, height, scrollY - top, scrollY - top + innerHeight);
      if (next.first === shown.current.first && next.end === shown.current.end) return false;
      shown.current = next;
      return true;
    };
    const measure = (): void => {
      top = (list.current?.getBoundingClientRect().top ?? 0) + scrollY;
      if (see()) setSpan(shown.current);
    };
    // In the same frame, so that no gap is ever seen.
    const scrolled = (): void => {
      if (see()) flushSync(() => setSpan(shown.current));
    };
    look.current = measure;
    measure();
    addEventListener('scroll', scrolled, { passive: true });
    return () => removeEventListener('scroll', scrolled);
  }, [list, count, height]);
  useEffect(() => {
    // What stands above the list may grow; the page grows with it.
    const observer = new ResizeObserver(() => look.current?.());
    observer.observe(document.body);
    return () => observer.disconnect();
  }, []);
  // A list that became shorter since.
  return span.end <= count ? span : spanOf(count, height, span.first * height, count * height);
}
