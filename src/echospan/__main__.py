"""`python -m echospan` is `echospan`."""

from echospan.cli import main

main()
