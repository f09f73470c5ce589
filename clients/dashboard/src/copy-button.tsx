/** Copies a text and says so. */

import { Check, Copy } from 'lucide-react';
import { useEffect, useState } from 'react';

/** The button; `text` may be made when it is pressed. */
export function CopyButton({ text, label }: { text: string | (() => string); label: string }) {
  const [copied, setCopied] = useState(false);
  useEffect(() => {
    if (!copied) return undefined;
    const timer = setTimeout(() => setCopied(false), 2_000);
    return () => clearTimeout(timer);
  }, [copied]);
  const copy = (): void => {
    // Refused where the page is not secure or the reader forbids it: the text stays selectable.
    navigator.clipboard?.writeText(typeof text === 'string' ? text : text()).then(() => setCopied(true), () => undefined);
  };
  const Icon = copied ? Check : Copy;
  return (
    <button type="button" className="button button-small" onClick={copy}>
      <Icon size={14} aria-hidden /> <span aria-live="polite">{copied ? 'Copied' : label}</span>
    </button>
  );
}
