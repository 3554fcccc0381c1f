"""The one table of what can be done to the appliance.

A command is a function that takes its parameters and exactly the services it names. The table lists them; HTTP, the
command line and the protocol's description are made from it.
"""
