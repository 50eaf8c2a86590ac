// Empty: it lets program_linux.go declare functions of the runtime without a body.
