"""`python -m pandallm` is `panda`."""

from pandallm.cli import main

main()
