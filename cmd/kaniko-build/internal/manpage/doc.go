// Package manpage writes the manual of a command line: one page, for man(1), of each
// command.
//
//	*cobra.Command --Write--> NAME.1  NAME-COMMAND.1 …
//
// Pages say what --help says, in roff with the macros of man(7), and are the same every
// time: they have no date. cobra has a writer of such pages too; it goes by way of
// Markdown, whose reader would be in the program.
package manpage
