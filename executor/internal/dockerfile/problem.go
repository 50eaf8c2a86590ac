package dockerfile

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"kaniko-build/schema/diag"
)

// hints says what to do about messages of BuildKit's parser and our own, by a part of their text.
var hints = []struct{ part, hint string }{
	{"unknown instruction", "instructions are ADD, ARG, CMD, COPY, ENTRYPOINT, ENV, EXPOSE, FROM, HEALTHCHECK, LABEL, ONBUILD, RUN, SHELL, STOPSIGNAL, USER, VOLUME and WORKDIR"},
	{"missing a value on flag", "write the value behind an equals sign: --flag=value"},
	{"duplicate flag", "give the flag once"},
	{"expecting boolean value for flag", "write the flag alone, or with =true or =false"},
	{"unknown flag: --unpack", "only ADD has it"},
	{"unknown flag: --checksum", "only ADD has it"},
	{"unknown flag: --keep-git-dir", "only ADD has it"},
	{"unknown flag: --from", "only COPY has it"},
	{"LABEL must have two arguments", "write LABEL name=value"},
	{"must have two arguments", "write ENV name=value"},
	{"names can not be blank", "write name=value"},
	{"can't find =", "quote values with blanks, or write each pair as name=value"},
	{"Destination could not be determined", "write the sources and then the destination"},
	{"unterminated heredoc", "end it with its word alone on a line"},
	{"FROM requires either one or three arguments", "write FROM image, or FROM image AS name"},
	{"name can't start with a number", "use lower-case letters, digits, '-', '_' and '.', beginning with a letter"},
	{"allowed as an ONBUILD trigger", "triggers are all instructions but FROM, MAINTAINER and ONBUILD"},
	{"Chaining ONBUILD", "name the instruction to run behind ONBUILD"},
	{"unexpected end of statement while looking for matching", "close the quote"},
	{"unsupported modifier (\ufffd)", "close the brace: ${name}"}, // the end of the text
	{"missing '}'", "close the brace: ${name}"},
	{"unsupported modifier", "modifiers are :- - :+ + :? ? # ## % %% / and //"},
	{"bad substitution", "name a variable: ${name}"},
	{"should not be blank", "give the ARG a default, or pass it as build arg"},
	{"variable expansion is not supported for --from", "define a stage: FROM ${IMAGE} AS name, with the ARG before the first FROM"},
	{"doesn't support variable expansion, define alias stage", "define a stage: FROM ${IMAGE} AS name, with the ARG before the first FROM"},
	{"is not allowed to be unset", "pass it as build arg, or give it a default"},
	{"it needs to be defined before current stage", "move that stage above this one"},
	{"stage needs to be defined before current command", "move that stage above this one"},
	{"unknown operating system or architecture", "platforms look like linux/amd64 or linux/arm/v7"},
	{"failed to parse platform", "platforms look like linux/amd64 or linux/arm/v7"},
	{"empty platform value", "give the ARG a default, or pass it as build arg"},
	{"invalid mount target", "add target=/path to the mount"},
	{"unsupported mount type", "types are bind, cache, tmpfs, secret and ssh"},
	{"unsupported sharing value", "sharing is shared, private or locked"},
	{"invalid network mode", "use default, none or host"},
	{"is not valid", "use --security=sandbox"},
	{"is not JSON", "write SHELL [\"program\", \"argument\"]"},
	{"requires the arguments to be in JSON form", "write SHELL [\"program\", \"argument\"]"},
	{"Unknown type", "write HEALTHCHECK CMD command, or HEALTHCHECK NONE"},
	{"Missing command after HEALTHCHECK CMD", "write HEALTHCHECK CMD command"},
	{"time: ", "write durations as 30s or 1m30s"},
	{"nvalid signal", "use a name as SIGTERM or a number"},
	{"invalid chmod parameter", "write the mode in octal, 644, or as symbols, u=rw,go=r"},
	{"invalid user index", "use numbers, or copy /etc/passwd and /etc/group there first"},
	{"checksum can't be specified", "remove --checksum, or ADD one URL or Git repository"},
	{"checksum requires HTTP(S) or Git sources", "remove --checksum, or ADD a URL or Git repository"},
	{"source can't be a URL for COPY", "use ADD"},
	{"source can't be a git ref for COPY", "use ADD"},
	{"must be lowercase", "no stage above has that name, and names of images are lower case"},
	{"invalid reference format", "images look like name:tag or registry/name@sha256:digest"},
	{"parser directive can be used", "remove one of them"},
	{"invalid escape token", "the escape directive takes \\ or `"},
	{"invalid stage index", "stages are counted from 0, and only those above can be named"},
	{"strconv.ParseInt", "write a whole number"},
	{"for mode", "write the mode in octal: 0440"},
	{"for uid", "write a number"},
	{"for gid", "write a number"},
	{"invalid value for size", "write a size as 64m or 1g"},
	{"invalid value for", "write true or false"},
	{"must be a key=value pair", "separate options by commas, without blanks: type=cache,target=/path"},
	{"failed to parse csv mounts", "write --mount=type=cache,target=/path"},
	{"one of source, target required", "add id=NAME to the mount"},
	{"mode not allowed", "only cache, secret and ssh mounts have mode, uid and gid"},
	{"invalid containerPort", "write a port, a range as 8000-8010, or either with /tcp, /udp or /sctp"},
	{"invalid port", "write a port, a range as 8000-8010, or either with /tcp, /udp or /sctp"},
}

var (
	quoted   = regexp.MustCompile(`("(?:[^"\\]|\\.)+")|'([^']+)'|(--[a-zA-Z][a-zA-Z-]*)|\(([^)]+)\)|(\$\{?\w+\}?)`)
	position = regexp.MustCompile(`^dockerfile parse error on line \d+: `)
)

// problem makes a problem at pos of an error.
func (f *File) problem(pos diag.Pos, err error) *diag.Problem {
	var known *diag.Problem
	if errors.As(err, &known) {
		out := *known
		if out.Pos.Line == 0 {
			out.Pos = pos
		}
		return &out
	}
	p := &diag.Problem{Pos: pos, What: oneLine(err)}
	for _, h := range hints {
		if strings.Contains(p.What, h.part) {
			p.Hint = h.hint
			break
		}
	}
	p.Pos = f.pointAt(pos, p.What)
	if strings.HasPrefix(p.What, "failed to process") { // a word: say of what
		p.What += f.excerpt(pos.Line, pos.Line)
	}
	return p
}

// pointAt is the position of the first thing that a message about the line of
// pos quotes and that stands there, or pos.
func (f *File) pointAt(pos diag.Pos, message string) diag.Pos {
	for _, m := range quoted.FindAllStringSubmatch(message, -1) {
		word := m[2] + m[3] + m[4] + m[5]
		if m[1] != "" {
			var err error
			if word, err = strconv.Unquote(m[1]); err != nil {
				word = strings.Trim(m[1], `"`)
			}
		}
		if at := f.word(pos, word); at != pos {
			return at
		}
	}
	return pos
}

func oneLine(err error) string {
	s := position.ReplaceAllString(err.Error(), "")
	return strings.Join(strings.Fields(strings.ReplaceAll(s, "\n", " ")), " ")
}

// canceled tells errors that are nobody's mistake in a Dockerfile.
func canceled(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// internal makes an error for what cannot happen.
func internal(format string, args ...any) error {
	return fmt.Errorf("internal error: "+format+" (please report this)", args...)
}
