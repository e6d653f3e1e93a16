/** What a payload must be like: a function that says so, or the fields that count, at any depth. */
export type Matcher<P> = ((payload: P) => boolean) | Like<P>

export type Like<A> = A extends ReadonlyArray<unknown> ? A
  : A extends object ? { readonly [K in keyof A]?: Like<A[K]> }
  : A

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Date)

const isLike = (actual: unknown, expected: unknown): boolean => {
  if (Object.is(actual, expected)) return true
  if (actual instanceof Date && expected instanceof Date) return actual.getTime() === expected.getTime()
  if (Array.isArray(actual) && Array.isArray(expected)) {
    return actual.length === expected.length && actual.every((each, at) => isLike(each, expected[at]))
  }
  if (!isRecord(actual) || !isRecord(expected)) return false
  return Object.entries(expected).every(([key, each]) => isLike(actual[key], each))
}

export const matches = <P>(matcher: Matcher<P> | undefined, payload: P): boolean => {
  if (matcher === undefined) return true
  return typeof matcher === "function" ? (matcher as (payload: P) => boolean)(payload) : isLike(payload, matcher)
}
