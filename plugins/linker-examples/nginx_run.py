"""The start of the service, as linker_atom's images call it."""

from linker_atom.deploy import nginx_run

if __name__ == "__main__":
    nginx_run()
