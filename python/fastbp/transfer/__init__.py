"""Networks from and to other libraries, and networks changed for a new task.

Sequential's methods call these modules; the libraries they need are imported when they are used.
"""
