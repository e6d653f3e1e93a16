/** Tells a lock connection that hangs from a database that is away: only the first calls for another process. */

/** Locks unconfirmed for this long are a sign of something. */
const unconfirmedMs = 30_000
/**
 * After an outage the locks are confirmed with the next refresh, every 2 s by default, or the one after it. Still unconfirmed
 * when the database has been answering for this long, they will not be.
 */
const answeringMs = 12_000

/** Asked every few seconds. `answers`: the database has just answered on another connection. */
export const makeWedged = () => {
  let answersSince: number | undefined
  return (now: number, confirmedMsAgo: number, answers: boolean): boolean => {
    answersSince = answers ? answersSince ?? now : undefined
    return answersSince !== undefined && confirmedMsAgo >= unconfirmedMs && now - answersSince >= answeringMs
  }
}
