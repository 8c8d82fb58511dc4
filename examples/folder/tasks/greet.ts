/** A plain function: the file's name is the task's, and whatever it throws fails the attempt. */
export default (payload: { readonly name: string }, job: { readonly attempt: number }) => {
  console.log(`Hello ${payload.name}, this is attempt ${job.attempt}.`)
}
