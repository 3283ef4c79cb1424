"""Races of fastloss against other libraries and the machine's floors.

`fastloss bench` shows them to a user; `bench/` in the repository tests, keeps and draws them. Nothing
else imports this package, and it is no part of the public interface.
"""
