/**
 * A child for the tests of `process.ts`: says that it is ready, then runs until
 * it is told to stop.
 */
const stay = setInterval(() => {}, 1000)
process.once("SIGTERM", () => {
  clearInterval(stay)
  console.log("stopping")
  process.exitCode = 7
})
console.log(`ready ${process.argv[2]} ${process.env["GREETING"]} ${process.env["VITEST"]}`)
