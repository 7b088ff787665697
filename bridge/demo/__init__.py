"""The demo: four builds through a real gateway and the sandbox, as CI would send them, shown as one table.

It stands beside cli.py in the order of imports; nothing imports it but the command.
"""
