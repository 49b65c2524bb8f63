#!lua flags=allow-oom
-- forget: records of ended tasks are deleted: dead letters, and what is known of completed and cancelled tasks.
-- keys: loc dead t
-- ARGV: pairs of id · the place of its last attempt ('' = whichever), so that what ended again since is left alone
-- returns: a letter a task: d deleted · u unknown · l it is live · o it has ended again since
-- include: base carry
local answers = {}
for a = 1, #ARGV, 2 do
  local id, wanted = ARGV[a], ARGV[a + 1]
  local text, answer = call('GET', K.t .. id), 'd'
  local _, _, n = cut(text or '')
  if not text then
    answer = call('HEXISTS', K.loc, id) == 1 and 'l' or 'u'
  elseif wanted ~= '' and wanted ~= (match(n or '', '.*\n{"p":"([^"]*)"') or '') then
    answer = 'o'
  else
    call('ZREM', K.dead, id)
    call('DEL', K.t .. id)
  end
  answers[#answers + 1] = answer
end
return concat(answers)
