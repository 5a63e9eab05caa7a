"""The commands of `drct`, one file each: arguments in, words and an exit status out, and no work of their own."""
