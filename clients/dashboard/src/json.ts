/** JSON objects. */

/** Whether a value is one. */
export function isJson(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
