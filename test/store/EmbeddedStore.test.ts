import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Embedded from "../../src/internal/pglite/layer.ts"
import * as PostgresStore from "../../src/internal/postgres/store.ts"
import * as Migrator from "../../src/Migrator.ts"
import { Harness } from "./harness.ts"
import { storeSuite } from "./suite.ts"

const schema = "graphile_worker"

const harness = Layer.effect(
  Harness,
  Effect.gen(function*() {
    yield* Migrator.migrate
    const store = yield* PostgresStore.make({ schema })
    return { store, other: yield* store.dedicated, severOther: Effect.die(new Error("nothing to sever")) }
  })
).pipe(
  Layer.provide(Migrator.Migrator.layer({ schema })),
  Layer.provide(Embedded.layer({}))
)

storeSuite("the store on the embedded database", { harness, capabilities: { batch: false, notifications: true } })
