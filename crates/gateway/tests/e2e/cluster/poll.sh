#!/usr/bin/env bash
# Polls an address for ever and prints each answer on a line: poll.sh ADDRESS [PARAMETERS OF THE FIRST POLL]
more=${2:-} cursor=
while :; do
  if answer=$(curl --silent --fail --noproxy '*' --max-time 60 "$1$more"); then
    printf '%s\n' "$answer"
    [[ $answer =~ \"cursor\":\"([^\"]*)\" ]] && cursor=${BASH_REMATCH[1]}
    session=
    [[ $answer =~ \"session\":\"([^\"]*)\" ]] && session=${BASH_REMATCH[1]}
    more="&cursor=$cursor&session=$session"
  fi
  # What comes meanwhile waits in the session.
  sleep 0.2
done
