/** Exit codes of every `orrery` process; the words of sysexits.h where it has one. */
export const exitCode = {
  ok: 0,
  /** Wrong arguments or configuration, a refused request, a run that did not succeed. The same again fails again. */
  usage: 1,
  /** Database or cluster not reachable within the time given. */
  unavailable: 69,
  /** A defect. Starting anew may help: the state it was in is gone. */
  software: 70,
  /** The node must not go on as it is (fenced, frozen too long): start it anew at once. */
  restart: 75
} as const

const byTag: { readonly [tag: string]: number } = {
  StoreUnavailable: exitCode.unavailable,
  ClusterUnavailable: exitCode.unavailable,
  Overloaded: exitCode.unavailable,
  QueueFull: exitCode.unavailable,
  QuotaExceeded: exitCode.unavailable,
  EmbeddedPostgresFailed: exitCode.unavailable,
  // Another process took the free port in the moment before it was listened on.
  SocketServerError: exitCode.unavailable,
  NodeFenced: exitCode.restart
}

/**
 * Of a typed failure; `undefined` stands for a defect. What is not known to be temporary is taken to be the caller's to
 * correct.
 */
export const ofFailure = (failure: unknown): number => {
  if (failure === undefined) return exitCode.software
  if (typeof failure !== "object" || failure === null) return exitCode.usage
  // A failure that knows better says so: a start refused because of the configuration, say.
  if ("isTemporary" in failure) return failure.isTemporary === true ? exitCode.unavailable : exitCode.usage
  if ("exitCode" in failure && typeof failure.exitCode === "number") return failure.exitCode
  return "_tag" in failure && typeof failure._tag === "string" ? byTag[failure._tag] ?? exitCode.usage : exitCode.usage
}
