/**
 * Parts of the page that are not needed for the first numbers: each is a file of its own, fetched when it is first opened,
 * or before that, once the page is live and has nothing else to do, so that it opens at once and also without a network.
 */

import { PackageX } from 'lucide-react';
import { useEffect, useState, type ComponentType, type ReactNode } from 'react';
import { Blank } from './states.js';

const parts: (() => Promise<void>)[] = [];

/** A component that is fetched when it is first shown; `waiting` stands in its place meanwhile. */
export function later<P extends object>(load: () => Promise<ComponentType<P>>, waiting: ReactNode = null): ComponentType<P> {
  let part: ComponentType<P> | undefined;
  let loading: Promise<void> | undefined;
  const fetchIt = (): Promise<void> => {
    loading ??= load().then(
      (found) => {
        part = found;
      },
      (error: unknown) => {
        loading = undefined;
        throw error;
      },
    );
    return loading;
  };
  parts.push(fetchIt);
  return function Later(props: P) {
    const [state, setState] = useState<'waiting' | 'there' | 'failed'>('waiting');
    useEffect(() => {
      if (part !== undefined || state !== 'waiting') return undefined;
      let isHere = true;
      fetchIt().then(
        () => isHere && setState('there'),
        () => isHere && setState('failed'),
      );
      return () => {
        isHere = false;
      };
    }, [state]);
    if (part !== undefined) {
      const Part = part;
      return <Part {...props} />;
    }
    if (state !== 'failed') return waiting;
    return (
      <Blank icon={PackageX} title="This part of the page could not be loaded" testId="part-failed">
        <p>The network may be gone, or the gateway has a newer page: then load the page again.</p>
        <button type="button" className="button" onClick={() => setState('waiting')}>Try again</button>
      </Blank>
    );
  };
}

/** Fetches all of them when there is nothing else to do. What fails is fetched when it is opened. */
export function fetchParts(): void {
  const idle = (globalThis as Partial<Pick<typeof globalThis, 'requestIdleCallback'>>).requestIdleCallback ?? ((run: () => void) => setTimeout(run, 1_000));
  idle(() => {
    for (const part of parts) part().catch(() => undefined);
  });
}
