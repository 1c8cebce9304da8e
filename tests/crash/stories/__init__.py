"""What happens around a crash: what the model is told to do, what a client does before it and after it.

Above: `rows`. Below: `act`. Every command leaves a line in the file `counter`, so that it can be said how often it ran;
every edit adds a line to the file `list`.
"""
