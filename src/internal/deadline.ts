import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { ConnectionFailed, KongTaskError } from "../KongTaskError.ts"
import { withMachineClock } from "./clock.ts"

class GivenUp extends Data.TaggedError("GivenUp")<{}> {
  override get message(): string {
    return "The statement was given up"
  }
}

/** A statement that got no answer for so long that its connection counts as broken. */
export const unanswered = (deadline: Duration.Duration): KongTaskError =>
  new KongTaskError({
    reason: new ConnectionFailed({ detail: `no answer within ${Duration.format(deadline)}`, cause: new GivenUp() })
  })

export const isUnanswered = ({ reason }: KongTaskError): boolean =>
  reason._tag === "ConnectionFailed" && reason.cause instanceof GivenUp

/** Gives a statement up that gets no answer. */
export const answeredWithin =
  (deadline: Duration.Duration) =>
  <A, E, R>(statement: Effect.Effect<A, E, R>): Effect.Effect<A, E | KongTaskError, R> =>
    withMachineClock(
      Effect.timeoutOrElse(statement, { duration: deadline, orElse: () => Effect.fail(unanswered(deadline)) })
    )
