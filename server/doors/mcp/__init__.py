"""The MCP door: the use-cases of `sessions/service.py` as tools, resources, prompts and tasks.

    server      puts the parts together: `build(service, ...) -> MCPServer`, for both protocol eras
    tools/      one file a group; `tool.py` is what they all share
    results     what a tool answers (pydantic), and the words that say what to call next
    brevity     the byte budget of a result (pure)
    waiting     waits for sessions on behalf of a request, telling progress; `progress` decides what to tell (pure)
    tasks       the extension io.modelcontextprotocol/tasks; `turns` makes the session log its task store
    resources, prompts
    stdio       the transport that hosts start; HTTP is `server.doors.http`

Above: the composition root. Below: a `Service`, got through an async callable at the first call that needs it, so that
`tools/list` waits for nothing. Only this folder imports `mcp`.
"""
