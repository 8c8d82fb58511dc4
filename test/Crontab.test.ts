import { assert, describe, it } from "@effect/vitest"
import { Cron, DateTime, Duration, Result } from "effect"
import { parseCrontab } from "graphile-worker"
import { Crontab } from "kongtask"

const parsed = (text: string) => Result.getOrThrow(Crontab.parse(text))

const issues = (text: string): ReadonlyArray<string> => {
  const result = Crontab.parse(text)
  return Result.isFailure(result)
    ? result.failure.issues.map(({ column, line, problem }) => `${line}:${column} ${problem}`)
    : []
}

const instants = (expression: string, options: Crontab.CronOptions, after: string, count: number) =>
  Crontab.next({ cron: Result.getOrThrow(Crontab.cron(expression, options)) }, {
    after: DateTime.makeUnsafe(after),
    count
  }).map(DateTime.formatIso)

/** Minutes of a stretch of time at which a line is due, by our reading and by graphile-worker's. */
const dueIn = (line: string, from: string, minutes: number) => {
  const [entry] = parsed(line)
  const [theirs] = parseCrontab(line)
  const ours: Array<string> = []
  const expected: Array<string> = []
  for (let n = 0; n < minutes; n++) {
    const date = new Date(Date.parse(from) + n * 60_000)
    if (Cron.match(entry!.cron, date)) ours.push(date.toISOString())
    const digest = {
      min: date.getUTCMinutes(),
      hour: date.getUTCHours(),
      date: date.getUTCDate(),
      month: date.getUTCMonth() + 1,
      dow: date.getUTCDay()
    }
    if (theirs!.match(digest)) expected.push(date.toISOString())
  }
  return { ours, expected }
}

describe("Crontab.parse", () => {
  it("reads fields, task, options and payload", () => {
    const [entry] = parsed(
      `*/15,7 9-17/4 1,15 jan-MAR,12 mon-fri send:mail/now ?id=mail&fill=4w3d2h1m&max=3&queue=a:b&priority=-5` +
        `&jobKey=the%20key&jobKeyMode=preserve_run_at&tz=Europe/Berlin&flags=eu,slow {a: 'it', b: [1, .5,], /* c */}`
    )
    assert.deepInclude(entry, {
      id: "mail",
      task: "send:mail/now",
      expression: "*/15,7 9-17/4 1,15 jan-MAR,12 mon-fri",
      timeZone: "Europe/Berlin",
      maxAttempts: 3,
      queueName: "a:b",
      priority: -5,
      jobKey: "the key",
      jobKeyMode: "preserve_run_at",
      flags: ["eu", "slow"],
      payload: { a: "it", b: [1, 0.5] }
    })
    assert.strictEqual(Duration.toMinutes(entry!.backfill), 44_761)
    assert.deepStrictEqual([...entry!.cron.minutes], [0, 7, 15, 30, 45])
    assert.deepStrictEqual([...entry!.cron.hours], [9, 13, 17])
    assert.deepStrictEqual([...entry!.cron.months], [1, 2, 3, 12])
    assert.deepStrictEqual([...entry!.cron.weekdays], [1, 2, 3, 4, 5])
  })

  it("takes 7 and a closing sun for Sunday", () => {
    for (const days of ["7", "0", "sun", "SUN"]) {
      assert.deepStrictEqual([...parsed(`* * * * ${days} t`)[0]!.cron.weekdays], [0], days)
    }
    for (const days of ["5-7", "fri-sun", "0,5,6"]) {
      assert.deepStrictEqual([...parsed(`* * * * ${days} t`)[0]!.cron.weekdays], [0, 5, 6], days)
    }
  })

  it("reads words", () => {
    const expressions = parsed("@hourly a\n@daily b\n@midnight c\n@weekly d\n@monthly e\n@yearly f\n@annually g")
    assert.deepStrictEqual(expressions.map(({ expression }) => expression), [
      "0 * * * *",
      "0 0 * * *",
      "0 0 * * *",
      "0 0 * * 0",
      "0 0 1 * *",
      "0 0 1 1 *",
      "0 0 1 1 *"
    ])
  })

  it("passes over comments and blank lines", () => {
    assert.deepStrictEqual(parsed("\r\n  # no\n\t\n").length, 0)
    assert.deepStrictEqual(parsed("# a\r\n  * * * * * b  \r\n").map(({ task }) => task), ["b"])
  })

  it("tells everything that is wrong with a file, with its place", () => {
    assert.deepStrictEqual(
      issues([
        "60 24 0 13 8 t",
        "* * * * t",
        "*/0 5-5 9-3 1-2-3 foo t",
        "* * * * * 1t ?id=1&nope=2&max=0&max=1&fill=3x&queue=a.b {a: }",
        "@never t",
        "0 0 30,31 2 * t",
        "* * * * * t {a: 1",
        "5/10 * * * * t ?tz=Mars/Base&priority=40000&jobKeyMode=dance&jobKey=&flags=a,,b",
        "* * * * * same",
        "* * * * * same",
        "* * * * * t [1]"
      ].join("\n")),
      [
        "1:1 expected a minute from 0 to 59, not \"60\"",
        "1:4 expected an hour from 0 to 23, not \"24\"",
        "1:7 expected a day of the month from 1 to 31, not \"0\"",
        "1:9 expected a month from 1 to 12 or a name (jan, feb, mar, apr, may, jun, jul, aug, sep, oct, nov, dec), not \"13\"",
        "1:12 expected a day of the week from 0 to 7 or a name (sun, mon, tue, wed, thu, fri, sat), not \"8\"",
        "2:10 expected 5 fields (minute hour day month weekday), or a word such as @daily, and then a task",
        "3:3 expected a step of 1 or more, not \"0\"",
        "3:5 expected a range whose end comes after its start, not \"5-5\"",
        "3:9 expected a range whose end comes after its start, not \"9-3\"",
        "3:13 expected a month from 1 to 12 or a name (jan, feb, mar, apr, may, jun, jul, aug, sep, oct, nov, dec), or a range of two of them, not \"1-2-3\"",
        "3:19 expected a day of the week from 0 to 7 or a name (sun, mon, tue, wed, thu, fri, sat), not \"foo\"",
        "4:11 expected a task's name (letters, digits, _, -, : and /, the first one a letter or _), not \"1t\"",
        "4:18 expected for \"id\" letters, digits, _ and -, the first one a letter or _, not \"1\"",
        "4:20 has the unknown option \"nope\"; expected one of id, fill, max, queue, jobKey, jobKeyMode, priority, tz, flags",
        "4:31 expected for \"max\" a whole number from 1 to 32767, not \"0\"",
        "4:33 has the option \"max\" twice",
        "4:44 expected for \"fill\" numbers, each with one of the units w, d, h, m, s, such as 1d12h, of 100 years at most, not \"3x\"",
        "4:53 expected for \"queue\" 1 to 128 letters, digits, _, - and :, not \"a.b\"",
        "4:61 has a payload that is not JSON5: invalid character '}'",
        "5:1 expected one of @yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly, not \"@never\"",
        "6:5 is a date that never comes: none of the months has such a day",
        "7:18 has a payload that is not JSON5: invalid end of input",
        "8:1 expected a range or * before a step: \"5-59/10\"",
        "8:20 expected for \"tz\" a time zone such as Europe/Berlin, UTC or +02:00, not \"Mars/Base\"",
        "8:39 expected for \"priority\" a whole number from -32768 to 32767, not \"40000\"",
        "8:56 expected for \"jobKeyMode\" one of replace, preserve_run_at, unsafe_dedupe, not \"dance\"",
        "8:69 expected for \"jobKey\" 1 to 512 characters, not \"\"",
        "8:76 expected for \"flags\" flags with commas between them, not \"a,,b\"",
        "10:1 has the id \"same\" of line 9; give one of them another with ?id=",
        "11:13 expected ?options, a payload in braces, or the end of the line"
      ]
    )
  })

  it("understands dates that come now and then", () => {
    assert.deepStrictEqual(issues("0 0 29 2 * a\n0 0 31 2 mon b\n0 0 31 2,3 * c"), [])
    assert.deepStrictEqual(instants("0 0 29 2 *", {}, "2026-01-01T00:00:00Z", 1), ["2028-02-29T00:00:00.000Z"])
  })

  it("means what graphile-worker means", () => {
    const lines = [
      "* * * * * t",
      "*/7 */5 * * * t",
      "1,2,3-9 0-6 * * * t",
      "0 0 */2 * 1 t",
      "0 0 1-31 * 1 t",
      "0 0 13 * 5 t",
      "0 0 1 */3 0-6 t",
      "0 12 * * 5-7 t",
      "0 12 * 1-12 7,1 t",
      "*/1 3 15,*/10 * */3 t",
      "59 23 31 12 * t"
    ]
    for (const line of lines) {
      const { expected, ours } = dueIn(line, "2027-12-25T00:00:00Z", 45 * 24 * 60)
      assert.deepStrictEqual(ours, expected, line)
      assert.isNotEmpty(ours, line)
    }
  })

  it("reads options and payloads as graphile-worker does", () => {
    const text = [
      "* * * * * a ?id=x&fill=1d2h&max=7&queue=q:1&priority=3&jobKey=a+b%26&jobKeyMode=replace {a:{b:'c'},}",
      "* * * * * b ?jobKey=k",
      "* * * * * a:b/c-d {\"_x\": null, y: +.5, z: 0x1f, __proto: \"\\u2028\"}"
    ].join("\r\n")
    for (const [index, theirs] of parseCrontab(text).entries()) {
      const ours = parsed(text)[index]!
      assert.deepStrictEqual({
        task: ours.task,
        identifier: ours.id,
        payload: ours.payload,
        options: {
          backfillPeriod: Duration.toMillis(ours.backfill),
          maxAttempts: ours.maxAttempts,
          queueName: ours.queueName,
          priority: ours.priority,
          jobKey: ours.jobKey,
          jobKeyMode: ours.jobKeyMode
        }
      } as unknown, {
        task: theirs.task,
        identifier: theirs.identifier,
        payload: theirs.payload ?? {},
        options: theirs.options
      })
    }
  })
})

describe("Crontab.format", () => {
  it("writes what parse reads as the same", () => {
    const text =
      "0 4 * * mon-fri a ?id=b&fill=1w90s&max=3&queue=q&priority=-1&jobKey=a%26+b%25&tz=Asia/Tokyo&flags=x,y " +
      "{a: 'it\\'s', b: {c: [null]}}\n@daily c\n*/5 * * * * d ?jobKey=k&jobKeyMode=unsafe_dedupe {x: 1}"
    const entries = parsed(text)
    const written = Crontab.format(entries)
    assert.deepStrictEqual(parsed(written), entries)
    assert.strictEqual(Crontab.format(parsed(written)), written)
    assert.strictEqual(written.split("\n")[1], "0 0 * * * c")
  })
})

describe("Crontab.cron", () => {
  it("refuses what is no expression, and zones that are not there", () => {
    for (const expression of ["", "* * * *", "* * * * * *", "@reboot", "0 0 31 2 *", "a * * * *"]) {
      assert.isTrue(Result.isFailure(Crontab.cron(expression)), expression)
    }
    const result = Crontab.cron("61 * * * *", { timeZone: "Nowhere/Else" })
    assert.isTrue(Result.isFailure(result) && result.failure.issues.length === 2)
  })

  it("reads builders", () => {
    assert.deepStrictEqual(
      [
        Crontab.everyMinute,
        Crontab.hourly(5),
        Crontab.daily(4, 30),
        Crontab.weekly(1, 9),
        Crontab.monthly(31, 0),
        Crontab.businessHours(30)
      ].map((expression) => instants(expression, {}, "2026-02-27T17:31:00Z", 1)[0]),
      [
        "2026-02-27T17:32:00.000Z",
        "2026-02-27T18:05:00.000Z",
        "2026-02-28T04:30:00.000Z",
        "2026-03-02T09:00:00.000Z",
        "2026-03-31T00:00:00.000Z",
        "2026-03-02T09:30:00.000Z"
      ]
    )
  })

  describe("when clocks are set forward", () => {
    // Berlin: 2026-03-29 02:00 +01 becomes 03:00 +02. New York: 2026-03-08 02:00 -05 becomes 03:00 -04.
    // Lord Howe: 2026-10-04 02:00 +10:30 becomes 02:30 +11.
    it("runs a skipped time later by what is skipped", () => {
      assert.deepStrictEqual(instants("30 2 * * *", { timeZone: "Europe/Berlin" }, "2026-03-28T00:00:00Z", 3), [
        "2026-03-28T01:30:00.000Z",
        "2026-03-29T01:30:00.000Z",
        "2026-03-30T00:30:00.000Z"
      ])
      assert.deepStrictEqual(instants("30 2 * * *", { timeZone: "America/New_York" }, "2026-03-07T00:00:00Z", 3), [
        "2026-03-07T07:30:00.000Z",
        "2026-03-08T07:30:00.000Z",
        "2026-03-09T06:30:00.000Z"
      ])
      assert.deepStrictEqual(instants("15 2 * * *", { timeZone: "Australia/Lord_Howe" }, "2026-10-03T00:00:00Z", 3), [
        "2026-10-03T15:45:00.000Z",
        "2026-10-04T15:15:00.000Z",
        "2026-10-05T15:15:00.000Z"
      ])
    })

    it("runs what is due in every hour without a gap and without a repetition", () => {
      for (
        const [timeZone, after] of [
          ["Europe/Berlin", "2026-03-28T23:50:00Z"],
          ["America/New_York", "2026-03-08T05:50:00Z"],
          ["Australia/Lord_Howe", "2026-10-03T13:50:00Z"]
        ] as const
      ) {
        const times = instants("*/10 * * * *", { timeZone }, after, 24).map((time) => Date.parse(time))
        assert.deepStrictEqual(times, times.map((_, n) => Date.parse(after) + (n + 1) * 600_000), timeZone)
      }
    })
  })

  describe("when clocks are set back", () => {
    // Berlin: 2026-10-25 03:00 +02 becomes 02:00 +01. New York: 2026-11-01 02:00 -04 becomes 01:00 -05.
    // Lord Howe: 2026-04-05 02:00 +11 becomes 01:30 +10:30.
    const edges = [
      ["30 2 * * *", "Europe/Berlin", "2026-10-24T22:00:00Z", "2026-10-25T00:30:00.000Z", "2026-10-25T01:30:00.000Z"],
      [
        "30 1 * * *",
        "America/New_York",
        "2026-11-01T04:00:00Z",
        "2026-11-01T05:30:00.000Z",
        "2026-11-01T06:30:00.000Z"
      ],
      [
        "45 1 * * *",
        "Australia/Lord_Howe",
        "2026-04-04T13:00:00Z",
        "2026-04-04T14:45:00.000Z",
        "2026-04-04T15:15:00.000Z"
      ]
    ] as const

    it("runs a repeated time once, the first time, unless told otherwise", () => {
      for (const [expression, timeZone, after, earlier, later] of edges) {
        const all = (onDstOverlap: Cron.DstOverlapPolicy | undefined) =>
          instants(expression, { timeZone, onDstOverlap }, after, 3).filter((time) =>
            Date.parse(time) - Date.parse(after) < 20 * 3_600_000
          )
        assert.deepStrictEqual(all(undefined), [earlier], timeZone)
        assert.deepStrictEqual(all("later"), [later], timeZone)
        assert.deepStrictEqual(all("both"), [earlier, later], timeZone)
      }
    })

    it("runs what is due in every hour without a gap and without a repetition", () => {
      for (const [, timeZone, after] of edges) {
        const times = instants("*/10 * * * *", { timeZone }, after, 30).map((time) => Date.parse(time))
        assert.deepStrictEqual(times, times.map((_, n) => Date.parse(after) + (n + 1) * 600_000), timeZone)
      }
    })
  })
})

describe("Crontab.explain", () => {
  it("says when in plain words", () => {
    const explained = (expression: string, timeZone?: string) => Crontab.explain({ expression, timeZone })
    assert.deepStrictEqual(
      [
        explained("* * * * *"),
        explained("*/15 9-17 * * mon-fri", "Europe/Berlin"),
        explained("0 4 * * *"),
        explained("0,30 8,20 1,15 * 5"),
        explained("@yearly"),
        explained("5-50/15 * * 6-8 *"),
        explained("0 */6 * * sat,sun"),
        explained("0 0 31 2 *")
      ],
      [
        "Every minute (UTC)",
        "Every 15 minutes of the hours 9 to 17, on Monday to Friday (Europe/Berlin)",
        "At 04:00 (UTC)",
        "At 08:00, 08:30, 20:00 and 20:30, on days 1 and 15 of the month, or on Friday (UTC)",
        "At 00:00, on day 1 of the month, in January (UTC)",
        "At minutes 5, 20, 35 and 50 of every hour, in June to August (UTC)",
        "At 00:00, 06:00, 12:00 and 18:00, on Saturday and Sunday (UTC)",
        "Never: is a date that never comes: none of the months has such a day"
      ]
    )
  })
})
