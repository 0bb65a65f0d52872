"""How sure the answers may be: audits of confident answers, accuracy with its interval, drift."""
