package cli

import (
	"strings"

	"github.com/spf13/cobra"
)

// Verbs gives the verbs that all daemons have their examples, which name the program, and
// adds the verb completion.
func Verbs(root *cobra.Command) {
	Completion(root)
	for _, cmd := range root.Commands() {
		switch cmd.Name() {
		case "check-config":
			cmd.Example = strings.ReplaceAll("  PROGRAM check-config\n  PROGRAM check-config --config new.yaml --explain\n  PROGRAM check-config --example > example.yaml", "PROGRAM", root.Name())
		case "version":
			cmd.Example = strings.ReplaceAll("  PROGRAM version\n  PROGRAM version --output json", "PROGRAM", root.Name())
		}
	}
}

// Completion adds the verb completion to a program, with how each shell takes it.
func Completion(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	examples := map[string]string{
		"bash":       "  PROGRAM completion bash | sudo tee /etc/bash_completion.d/PROGRAM > /dev/null\n  source <(PROGRAM completion bash)",
		"zsh":        "  PROGRAM completion zsh > \"${fpath[1]}/_PROGRAM\"",
		"fish":       "  PROGRAM completion fish > ~/.config/fish/completions/PROGRAM.fish",
		"powershell": "  PROGRAM completion powershell | Out-String | Invoke-Expression",
	}
	for _, cmd := range root.Commands() {
		if cmd.Name() != "completion" {
			continue
		}
		cmd.Short = "Write a script by which a shell completes the words of commands"
		cmd.Long = "Writes the script by which a shell completes commands, flags and names when you press\n" +
			"Tab. The help of each shell's verb says how to install it."
		cmd.Example = strings.ReplaceAll(examples["bash"]+"\n"+examples["fish"], "PROGRAM", root.Name())
		for _, shell := range cmd.Commands() {
			shell.Short = "Write the script for " + shell.Name()
			shell.RunE = completionScript(root, shell.Name())
			shell.Example = strings.ReplaceAll(examples[shell.Name()], "PROGRAM", root.Name())
		}
	}
}

// completionScript writes the script to where the program writes now, and not to where it
// wrote when the verb was added.
func completionScript(root *cobra.Command, shell string) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, _ []string) error {
		bare, err := cmd.Flags().GetBool("no-descriptions")
		if err != nil {
			return err
		}
		out := cmd.OutOrStdout()
		switch {
		case shell == "bash":
			return root.GenBashCompletionV2(out, !bare)
		case shell == "fish":
			return root.GenFishCompletion(out, !bare)
		case shell == "zsh" && bare:
			return root.GenZshCompletionNoDesc(out)
		case shell == "zsh":
			return root.GenZshCompletion(out)
		case bare:
			return root.GenPowerShellCompletion(out)
		}
		return root.GenPowerShellCompletionWithDesc(out)
	}
}
