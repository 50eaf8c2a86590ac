package dockerfile_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"kaniko-build/executor/internal/dockerfile"
)

func TestLintRules(t *testing.T) {
	for _, c := range []struct {
		name, text string
		o          dockerfile.Options
		want       []string // "line Rule: text"
		err        string
	}{
		{name: "stage names and the case of as", text: "FROM scratch AS Bad\n#\nFROM scratch as b\n", want: []string{
			"1 StageNameCasing: Stage name 'Bad' should be lowercase",
			"3 FromAsCasing: 'as' and 'FROM' keywords' casing do not match"}},
		{name: "the majority decides about case", text: "FROM scratch\ncopy a /a\nCOPY b /b\n", want: []string{
			"2 ConsistentInstructionCasing: Command 'copy' should match the case of the command majority (uppercase)"}},
		{name: "reserved and repeated names", text: "FROM scratch AS scratch\nFROM scratch AS context\nFROM busybox AS b\nFROM busybox AS b\n", want: []string{
			`1 ReservedStageName: Stage name should not use the same name as reserved stage "scratch"`,
			`2 ReservedStageName: Stage name should not use the same name as reserved stage "context"`,
			`4 DuplicateStageName: Duplicate stage name "b", stage names should be unique`}},
		{name: "shell form", text: "FROM scratch\nCMD x\nENTRYPOINT y\n", want: []string{
			"2 JSONArgsRecommended: JSON arguments recommended for CMD to prevent unintended behavior related to OS signals",
			"3 JSONArgsRecommended: JSON arguments recommended for ENTRYPOINT to prevent unintended behavior related to OS signals"}},
		{name: "an own shell is meant", text: "FROM scratch AS a\nSHELL [\"/s\"]\nFROM a\nCMD x\n"},
		{name: "only the last counts", text: "FROM scratch\nCMD [\"a\"]\nCMD [\"b\"]\n", want: []string{
			"2 MultipleInstructionsDisallowed: Multiple CMD instructions should not be used in the same stage because only the last one will be used"}},
		{name: "not across stages", text: "FROM scratch AS a\nCMD [\"a\"]\nFROM a\nCMD [\"b\"]\n"},
		{name: "old forms", text: "FROM scratch\nENV k v\nLABEL k v\nMAINTAINER m\n", want: []string{
			`2 LegacyKeyValueFormat: "ENV key=value" should be used instead of legacy "ENV key value" format`,
			`3 LegacyKeyValueFormat: "LABEL key=value" should be used instead of legacy "LABEL key value" format`,
			"4 MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label"}},
		{name: "stages that are not needed are not judged", text: "FROM scratch AS a\nENV k v\nFROM scratch\n"},
		{name: "unless all are asked for", text: "FROM scratch AS a\nENV k v\nFROM scratch\n", o: dockerfile.Options{AllStages: true}, want: []string{
			`2 LegacyKeyValueFormat: "ENV key=value" should be used instead of legacy "ENV key value" format`}},
		{name: "relative directory", text: "FROM scratch\nWORKDIR app/\nWORKDIR sub\n", want: []string{
			`2 WorkdirRelativePath: Relative workdir "app/" can have unexpected results if the base image changes`}},
		{name: "variables", text: "FROM busybox\nARG DIR_ASSETS=a\nCOPY $DIR_ASSET .\nENV PATH=$PAHT:/x\nARG known\nCOPY $known /k\n", want: []string{
			"3 UndefinedVar: Usage of undefined variable '$DIR_ASSET' (did you mean $DIR_ASSETS?)",
			"4 UndefinedVar: Usage of undefined variable '$PAHT' (did you mean $PATH?)"}},
		{name: "args of FROM", text: "ARG tag=latest\nFROM busybox:${tag}${version}\n", want: []string{
			"2 UndefinedArgInFrom: FROM argument 'version' is not declared"}},
		{name: "default base", text: "ARG V\nFROM busybox:${V}\n", o: dockerfile.Options{Args: args("V=1")}, want: []string{
			"2 InvalidDefaultArgInFrom: Default value for ARG busybox:${V} results in empty or invalid base image name"}},
		{name: "platforms", text: "FROM --platform=$TARGETPLATFORM busybox AS a\nFROM --platform=linux/amd64 busybox\n", want: []string{
			"1 RedundantTargetPlatform: Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
			`2 FromPlatformFlagConstDisallowed: FROM --platform flag should not use constant value "linux/amd64"`}},
		{name: "platform in the name", text: "FROM --platform=linux/amd64 busybox AS build-amd64\n"},
		{name: "base of another platform", text: "FROM busybox\n", o: dockerfile.Options{Platform: arm64}, want: []string{
			`1 InvalidBaseImagePlatform: Base image busybox was pulled with platform "linux/amd64", expected "linux/arm64" for current build`}},
		{name: "secrets", text: "FROM scratch\nARG SECRET_X\nENV password=a PUBLIC_KEY=b git_key=\nARG password_file\n# check=skip=SecretsUsedInArgOrEnv\nARG token\n", want: []string{
			`2 SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ARG "SECRET_X")`,
			`3 SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ENV "git_key")`,
			`3 SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ENV "password")`}},
		{name: "empty continuation", text: "FROM scratch\nCOPY a \\\n\n/b\n", want: []string{"4 NoEmptyContinuation: Empty continuation line"}},
		{name: "ports", text: "FROM scratch\nEXPOSE 80/TcP 127.0.0.1:80:80\n", want: []string{
			"2 ExposeInvalidFormat: EXPOSE instruction should not define an IP address or host-port mapping, found '127.0.0.1:80:80'",
			"2 ExposeProtoCasing: Defined protocol '80/TcP' in EXPOSE instruction should be lowercase"}},
		{name: "ignored files", text: "FROM scratch\nCOPY Dockerfile .\nADD Dockerfile /x\nCOPY . .\n", o: dockerfile.Options{Ignore: []string{"Dockerfile"}}, want: []string{
			`2 CopyIgnoredFile: Attempting to Copy file "Dockerfile" that is excluded by .dockerignore`,
			`3 CopyIgnoredFile: Attempting to Add file "Dockerfile" that is excluded by .dockerignore`}},
		{name: "everything ignored", text: "FROM scratch\nCOPY . .\n", o: dockerfile.Options{Ignore: []string{"*"}}, want: []string{
			`2 CopyIgnoredFile: Attempting to Copy file "." that is excluded by .dockerignore`}},
		{name: "ignored with exceptions", text: "FROM scratch\nCOPY a .\n", o: dockerfile.Options{Ignore: []string{"**", "!a"}}},
		{name: "descriptions", text: "# check=experimental=InvalidDefinitionDescription\n# bar is it\nARG foo=bar\nFROM scratch\n", want: []string{
			"3 InvalidDefinitionDescription: Comment for ARG should follow the format: `# foo <description>`"}},
		{name: "skip all", text: "# check=skip=all\nFROM scratch as b\ncopy a .\n"},
		{name: "skip some, and fail", text: "#check=skip=ConsistentInstructionCasing;error=true\nFROM scratch as b\ncopy a .\n",
			want: []string{"2 FromAsCasing: 'as' and 'FROM' keywords' casing do not match"}, err: "lint violation found for rules: FromAsCasing"},
		{name: "the build arg replaces the directive", text: "#check=error=true\nFROM scratch as b\n", o: dockerfile.Options{Args: args("BUILDKIT_DOCKERFILE_CHECK=skip=all")}},
		{name: "warnings come beside an error", text: "FROM scratch AS Bad\nMAINTAINER m\nBADCMD\n", err: "unknown instruction: BADCMD", want: []string{
			"1 StageNameCasing: Stage name 'Bad' should be lowercase", "2 MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := resolve(t, c.text, c.o)
			if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
				t.Fatalf("error is %v, want %q", err, c.err)
			}
			var got []string
			for _, w := range p.Warnings {
				if w.Rule != "InvalidBaseImagePlatform" && !strings.HasPrefix(w.URL, "https://docs.docker.com/go/dockerfile/rule/") {
					t.Errorf("URL is %q", w.URL)
				}
				got = append(got, fmt.Sprintf("%d %s: %s", w.Pos.Line, w.Rule, w.Text))
			}
			slices.Sort(got)
			if !slices.Equal(got, c.want) {
				t.Errorf("warnings are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
		})
	}
}
