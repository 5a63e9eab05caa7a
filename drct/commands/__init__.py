"""The commands of `drct`, one file each: arguments in, words out, an exit status."""
