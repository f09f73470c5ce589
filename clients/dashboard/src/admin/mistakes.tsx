/** Mistakes of a text that was tried, each with the line it is in. */

/** A mistake as services say it: `name:line:column: what is wrong`. */
const PLACED = /^[^\s:]*:(\d+):(\d+): ([\s\S]*)$/;

/** One mistake, with its place where it has one. */
export interface MistakeAt {
  readonly line: number | undefined;
  readonly column: number | undefined;
  readonly what: string;
  /** The line as it was written. */
  readonly source: string | undefined;
}

/** Finds the place of a mistake in the text. Pure. */
export function placeMistake(mistake: string, text: string): MistakeAt {
  const [, line, column, what] = PLACED.exec(mistake) ?? [];
  if (what === undefined) return { line: undefined, column: undefined, what: mistake, source: undefined };
  return { line: Number(line), column: Number(column), what, source: text.split(/\r?\n/)[Number(line) - 1] };
}

/** All of them. */
export function Mistakes({ mistakes, text }: { mistakes: readonly string[]; text: string }) {
  return (
    <ul className="mistakes" aria-label="Mistakes">
      {mistakes.map((mistake) => {
        const { line, column, what, source } = placeMistake(mistake, text);
        return (
          <li key={mistake}>
            {line !== undefined && <span className="mistake-place">Line {line}</span>}
            <span>{what}</span>
            {source !== undefined && (
              <pre className="mistake-source" tabIndex={0}>
                <span aria-hidden>{line}</span> {source}
                {column !== undefined && column > 0 && <span className="mistake-caret" aria-hidden>{`\n${' '.repeat(String(line).length + column)}^`}</span>}
              </pre>
            )}
          </li>
        );
      })}
    </ul>
  );
}

/** The mistakes in an answer. */
export function mistakesOf(answer: Record<string, unknown>): string[] {
  return Array.isArray(answer['mistakes']) ? answer['mistakes'].map(String) : [];
}
