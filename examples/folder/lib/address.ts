/** What tasks share is in a folder of its own, or in a file whose name begins with `_`. */
export const address = /^[^@\s]+@[^@\s]+$/
